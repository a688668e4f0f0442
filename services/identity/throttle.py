"""Log-in throttling: a token bucket for each e-mail address and each peer, in bounded memory.

Both are needed: the first stops many peers that guess one password, the second one peer that tries many accounts.
Counts are kept by each replica for itself, so that N replicas allow N times as much.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from services.runtime.clock import Clock
from services.runtime.errors import ResourceExhausted

_IPV6_NETWORK_BITS = 64  # One customer usually holds a whole /64.


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket: ``burst`` attempts at once, then one each ``interval_s`` seconds."""

    burst: int
    interval_s: float


class AttemptLimiter:
    """Buckets by key; of more than ``max_keys`` the least recently used is forgotten."""

    def __init__(self, rate: Rate, *, max_keys: int, clock: Clock) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._clock = clock
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str) -> None:
        """Counts an attempt. Raises ResourceExhausted (LOGIN_THROTTLED), with the wait, where the bucket is empty.

        A refused attempt is not counted. The generic cell rate algorithm: one number a key, when its bucket is full.
        """
        now_s = self._clock.monotonic_s()
        full_at_s = max(self._full_at_s.get(key, now_s), now_s) + self._rate.interval_s
        wait_s = full_at_s - now_s - self._rate.burst * self._rate.interval_s
        if wait_s > 1e-9:
            raise ResourceExhausted(
                "LOGIN_THROTTLED",
                f"Too many attempts; try again in {wait_s:.0f} s.",
                retry_after_ms=max(1, round(wait_s * 1000)),
            )
        self._full_at_s[key] = full_at_s
        self._full_at_s.move_to_end(key)
        if len(self._full_at_s) > self._max_keys:
            self._full_at_s.popitem(last=False)

    def give_back(self, key: str) -> None:
        """Uncounts an attempt that succeeded: only failures use up the bucket."""
        full_at_s = self._full_at_s.get(key)
        if full_at_s is None:
            return
        if full_at_s - self._rate.interval_s <= self._clock.monotonic_s():
            del self._full_at_s[key]
        else:
            self._full_at_s[key] = full_at_s - self._rate.interval_s

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at_s)


def peer_key(peer: str) -> str:
    """The part of a gRPC peer name ("ipv4:192.0.2.1:55", "ipv6:[::1]:55", "unix:...") that outlives a connection."""
    family, _, address = peer.partition(":")
    host = address.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return family
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, _IPV6_NETWORK_BITS), strict=False))
    return str(ip)
