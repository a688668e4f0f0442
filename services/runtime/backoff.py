"""How long to wait before the next try: exponential backoff with full jitter.

wait = uniform(0, min(cap, base * 2^n)).
Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_EXPONENT_MAX = 30


@dataclass(frozen=True, slots=True)
class Backoff:
    """A policy: the first wait is at most `base_ms`, every further one at most twice as long, none above `cap_ms`."""

    base_ms: int
    cap_ms: int

    def delay_ms(self, failures: int, rng: random.Random, *, at_least_ms: int = 0) -> int:
        """Milliseconds to wait after `failures` failures in a row (1 or more), never below `at_least_ms`.

        `at_least_ms` is what the other side asked for (RetryInfo); jitter comes on top of it, so that a crowd that was
        sent away together does not come back together.
        """
        ceiling = min(self.cap_ms, self.base_ms << min(max(failures - 1, 0), _EXPONENT_MAX))
        return at_least_ms + round(rng.uniform(0, ceiling))
