"""A token bucket: how many calls may leave now, and when the next one may."""

from __future__ import annotations

import math

BURST_S = 1.0
"""A bucket holds the calls of one second, at least one, so that a rate is steady and not a volley a minute."""


class TokenBucket:
    """Lets `per_minute` calls a minute through, smoothly. Time is given by the caller, in seconds of one clock."""

    def __init__(self, per_minute: float, now_s: float) -> None:
        if per_minute <= 0:
            raise ValueError(f"a rate of {per_minute} a minute lets nothing through")
        self._per_s = per_minute / 60
        self._tokens = self._capacity
        self._at_s = now_s

    @property
    def _capacity(self) -> float:
        return max(1.0, self._per_s * BURST_S)

    def change(self, per_minute: float, now_s: float) -> None:
        """Go on at another rate; what has been saved up stays, as far as the new rate's burst allows."""
        self._refill(now_s)
        self._per_s = per_minute / 60
        self._tokens = min(self._tokens, self._capacity)

    def take(self, wanted: int, now_s: float) -> int:
        """Take up to `wanted` whole tokens; returns how many were there."""
        self._refill(now_s)
        taken = min(wanted, math.floor(self._tokens + 1e-9))
        self._tokens -= taken
        return taken

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next token is there; 0 where one is."""
        self._refill(now_s)
        return max(0.0, (1.0 - self._tokens) / self._per_s)

    def _refill(self, now_s: float) -> None:
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(self._at_s, now_s)
        self._tokens = min(self._capacity, self._tokens + elapsed_s * self._per_s)
