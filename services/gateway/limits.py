"""Rate limits: requests and tokens per minute, of a deployment and of an API key, with a burst.

Each limit is a token bucket, kept as one number (GCRA, the generic cell rate algorithm of ITU-T I.371): the time at
which the bucket is full again. All limits of a call are taken together or not at all. Tokens are reserved by estimate
before the call, and the difference to what was used is corrected after it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.gateway.attempts import Attempt
from services.gateway.calls import Owner
from services.gateway.catalogue import Deployment
from services.gateway.failures import refused
from services.gateway.layer import Around
from services.gateway.recent import Recent
from services.gateway.usage import estimate_input_tokens
from services.runtime import telemetry
from services.runtime.clock import Clock

_MINUTE_US = 60_000_000
_NAMES_KEPT = 10_000


class Take(NamedTuple):
    """An amount to take from one bucket.

    Attributes:
        key: the bucket's name.
        interval_us: time in which the bucket gains one unit.
        tolerance_us: time in which the empty bucket gets full: its burst.
        amount: requests or tokens; negative to give back.
    """

    key: str
    interval_us: float
    tolerance_us: float
    amount: float

    @classmethod
    def of(cls, key: str, per_minute: int, burst_s: float, amount: float) -> Take:
        """From a limit with a burst of `burst_s` seconds of its rate, at least one unit.

        An amount above the whole burst takes the whole burst: it could never be taken otherwise.
        """
        interval_us = _MINUTE_US / per_minute
        burst = max(1.0, burst_s * 1_000_000 / interval_us)
        return cls(key, interval_us, burst * interval_us, min(amount, burst))

    def of_amount(self, amount: float) -> Take:
        """The same for another amount, at most the whole burst."""
        return Take(self.key, self.interval_us, self.tolerance_us, min(amount, self.tolerance_us / self.interval_us))

    def left(self, wait_us: float) -> float:
        """What the bucket holds that is full again `wait_us` from now; below 0 it is in debt."""
        return (self.tolerance_us - wait_us) / self.interval_us

    def at_share(self, share: float) -> Take:
        """The same from a bucket with this share of rate and burst."""
        interval_us = self.interval_us / share
        return self._replace(interval_us=interval_us, amount=min(self.amount, self.tolerance_us / interval_us))


class LimitStore(Protocol):
    """Where buckets are kept."""

    async def take(self, takes: tuple[Take, ...]) -> int:
        """Take all of them, or none. Returns 0, or the milliseconds after which trying again may work."""
        ...

    def correct(self, takes: tuple[Take, ...]) -> None:
        """Take or give back whatever is there; a bucket may go into debt. Does not wait."""
        ...

    async def full_in_us(self, takes: tuple[Take, ...]) -> list[float]:
        """How long each of these buckets takes to be full again; 0 where it is."""
        ...


class LocalLimits:
    """Buckets of this process alone."""

    def __init__(self, clock: Clock, buckets_max: int = 20_000) -> None:
        """Keep at most `buckets_max`; the one not used for longest is forgotten, which makes it full."""
        self._clock = clock
        self._buckets = Recent(lambda _: _Bucket(), buckets_max)

    async def take(self, takes: tuple[Take, ...]) -> int:
        """See LimitStore.take."""
        now_us = self._clock.monotonic_s() * 1_000_000
        found = self._found(takes, now_us)
        wait_us = max(
            [full_at_us - now_us - take.tolerance_us for take, (_, full_at_us) in zip(takes, found, strict=True)]
        )
        # Below a microsecond is rounding.
        if wait_us >= 1:
            return math.ceil(wait_us / 1_000)
        for bucket, full_at_us in found:
            bucket.full_at_us = full_at_us
        return 0

    def correct(self, takes: tuple[Take, ...]) -> None:
        """See LimitStore.correct."""
        for bucket, full_at_us in self._found(takes, self._clock.monotonic_s() * 1_000_000):
            bucket.full_at_us = full_at_us

    async def full_in_us(self, takes: tuple[Take, ...]) -> list[float]:
        """See LimitStore.full_in_us."""
        now_us = self._clock.monotonic_s() * 1_000_000
        return [max(0.0, self._buckets.get(take.key).full_at_us - now_us) for take in takes]

    def _found(self, takes: tuple[Take, ...], now_us: float) -> list[tuple[_Bucket, float]]:
        """The bucket of each, and when it is full again once that is taken."""
        buckets = [(self._buckets.get(take.key), take) for take in takes]
        return [(bucket, max(bucket.full_at_us, now_us) + take.interval_us * take.amount) for bucket, take in buckets]


@dataclass(slots=True)
class _Bucket:
    full_at_us: float = 0.0


@dataclass(frozen=True, slots=True)
class LimitView:
    """A limit for people to look at: what it gains a minute, what it holds when full, what it holds now."""

    per_minute: int
    burst: int
    left: int


@dataclass(frozen=True, slots=True)
class LimitRules:
    """Limits of every API key, 0 for none, their burst in seconds of the rate; how long a call waits for any limit."""

    key_requests_per_minute: int = 0
    key_tokens_per_minute: int = 0
    key_burst_s: float = 10.0
    wait_max_s: float = 1.0


class _Taken(NamedTuple):
    """What an attempt takes of requests, and of tokens."""

    requests: tuple[Take, ...]
    tokens: tuple[Take, ...]


class RateLimits:
    """The limit layer of the pipeline."""

    def __init__(self, store: LimitStore, clock: Clock, rules: LimitRules | None = None) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules or LimitRules()
        self._refused = telemetry.counter("limits_refused")
        # What a limit takes is the same for every call but for the number of tokens.
        self._keys = Recent(self._of_key, _NAMES_KEPT)
        self._deployments = Recent(lambda _: _Known(), _NAMES_KEPT)

    def admitted(self, attempt: Attempt) -> Around[_Taken]:
        """The attempt is within its limits inside. What never left is given back on the way out.

        Waits up to `wait_max_s` for its turn, where it may wait. Raises CallFailed(RATE_LIMITED), not dispatched.
        """
        return Around(attempt, self._enter, self._leave)

    async def _enter(self, attempt: Attempt) -> _Taken:
        taken = self._takes(attempt)
        if taken.requests or taken.tokens:
            await self._take(attempt, taken.requests + taken.tokens)
        return taken

    async def _leave(self, attempt: Attempt, taken: _Taken) -> None:
        if not attempt.dispatched:
            corrections = [take._replace(amount=-take.amount) for take in taken.requests + taken.tokens]
        else:
            usage = attempt.usage
            used = 0 if usage is None else usage.input_tokens + usage.output_tokens
            corrections = [take._replace(amount=used - take.amount) for take in taken.tokens if take.amount != used]
        if corrections:
            self._store.correct(tuple(corrections))

    async def views(self, deployments: Sequence[Deployment]) -> list[tuple[LimitView | None, LimitView | None]]:
        """The limits of requests and of tokens of each deployment; None where it has none."""
        kinds = [
            (deployment, kind, per_minute)
            for deployment in deployments
            for kind, per_minute in (("rpm", deployment.requests_per_minute), ("tpm", deployment.tokens_per_minute))
        ]
        takes = [
            Take.of(f"deployment:{deployment.name}:{kind}", per_minute, deployment.burst_s, 0) if per_minute else None
            for deployment, kind, per_minute in kinds
        ]
        asked = tuple(take for take in takes if take is not None)
        waits_us = iter(await self._store.full_in_us(asked) if asked else ())
        views = [
            None
            if take is None
            else LimitView(per_minute, math.floor(take.left(0)), math.floor(take.left(next(waits_us))))
            for take, (_, _, per_minute) in zip(takes, kinds, strict=True)
        ]
        return list(zip(views[::2], views[1::2], strict=True))

    async def _take(self, attempt: Attempt, takes: tuple[Take, ...]) -> None:
        patience_s = self._rules.wait_max_s if attempt.waits else 0.0
        give_up_s = min(attempt.deadline, self._clock.monotonic_s() + patience_s)
        while wait_ms := await self._store.take(takes):
            if self._clock.monotonic_s() + wait_ms / 1_000 > give_up_s:
                self._refused.add()
                message = (
                    f"the gateway's rate limit for {attempt.deployment.name} or for this API key is used up, so "
                    f"nothing was sent; try again in {wait_ms} ms"
                )
                raise refused("RATE_LIMITED", message, retry_after_ms=wait_ms)
            await asyncio.sleep(wait_ms / 1_000)

    def _takes(self, attempt: Attempt) -> _Taken:
        deployment, key = self._of_deployment(attempt.deployment), self._keys.get(_key_name(attempt.owner))
        requests = deployment.requests + key.requests
        tokens = deployment.tokens + key.tokens
        if tokens:
            amount = estimate_input_tokens(attempt.request.call) + attempt.request.max_output_tokens
            tokens = tuple([take.of_amount(amount) for take in tokens])
        return _Taken(requests, tokens)

    def _of_deployment(self, deployment: Deployment) -> _Taken:
        known = self._deployments.get(deployment.name)
        # The catalogue may have changed its limits.
        if known.deployment is not deployment:
            known.deployment = deployment
            known.one = _one_of_each(
                f"deployment:{deployment.name}",
                deployment.requests_per_minute,
                deployment.tokens_per_minute,
                deployment.burst_s,
            )
        return known.one

    def _of_key(self, name: str) -> _Taken:
        rules = self._rules
        return _one_of_each(name, rules.key_requests_per_minute, rules.key_tokens_per_minute, rules.key_burst_s)


_NOTHING = _Taken((), ())


@dataclass(slots=True)
class _Known:
    """What one request, and one token, take from the limits of a deployment."""

    deployment: Deployment | None = None
    one: _Taken = _NOTHING


def _key_name(owner: Owner) -> str:
    return f"key:{owner.project_id}/{owner.key_id}"


def _one_of_each(name: str, requests_per_minute: int, tokens_per_minute: int, burst_s: float) -> _Taken:
    return _Taken(
        (Take.of(f"{name}:rpm", requests_per_minute, burst_s, 1),) if requests_per_minute else (),
        (Take.of(f"{name}:tpm", tokens_per_minute, burst_s, 1),) if tokens_per_minute else (),
    )
