"""How many calls a run may have under way to one model, found from what the model's provider refuses.

Additive increase, multiplicative decrease (Chiu and Jain 1989), with two things of binary increase congestion control
(Xu, Harfoush and Rhee 2004): the way back to where a refusal came is halved with every round of answers, and beyond it
growth begins slowly and speeds up. So most calls go near the limit, and few are spent on finding it. Once a provider
has refused a call, calls leave paced over a round of answers (Aggarwal, Savage and Anderson 2000): answers that come
together would else be followed by calls that leave together, and those are refused at a height that is reached only for
a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final, NamedTuple

from services.orchestrator.calls import Answer, Failure
from services.runtime.clock import Clock

REFUSALS: Final = frozenset({"RATE_LIMITED", "PROVIDER_OVERLOADED"})
"""Failures that say: too much at once."""

START_CALLS: Final = 32
"""Calls at once before anything is known; each answer adds one until the first refusal. Answers count only after the
limit was reached, as many as it admits: one that no calls come near says nothing about the next."""
DECREASE: Final = 0.85
"""What is left of the limit after a refusal."""
PAUSED_SHARE: Final = 0.5
"""What is left of it where everything is refused."""
PROBE_ROUNDS: Final = 4
"""Rounds of answers before one call more is tried than was refused the last time."""
GROWTH_MAX: Final = 0.1
"""The most that a round adds where no refusal has come yet at that height."""
BURSTS: Final = 12
"""Calls leave in so many bursts a round, once a refusal has come."""
PACE_GAIN: Final = 1.1
"""How much faster than answers came calls may leave, so that it is never the pace alone that holds them back."""
ROUND_WEIGHT: Final = 0.125
"""What the time of the newest answer counts in the time of a round (as in RFC 6298)."""
PAUSE_MS: Final = 1_000
"""First pause of a provider that answers nothing and names no time; it doubles up to PAUSE_MAX_MS."""
PAUSE_MAX_MS: Final = 60_000


class CallWindow:
    """The calls of a run to one model, in one worker: those under way, and how many there may be.

    Calls that were sent before the limit fell say nothing new by being refused too. Where as many are refused in a row
    as might be under way, the provider counts calls over time, and not at once: then nothing is sent for a while.
    """

    def __init__(self, most: int, clock: Clock) -> None:
        """`most` is the run's own limit; it is never exceeded."""
        self._clock = clock
        self._most = most
        self._limit = float(min(START_CALLS, most))
        self._ceiling: float | None = None
        self._under_way: dict[int, tuple[int, float]] = {}
        self._round_s = 0.0
        self._burst_left = 0
        self._next_burst_s = float("-inf")
        self._epoch = 0
        self._to_grow = 0
        self._in_a_row = 0
        self._round = self.limit
        self._pauses = 0
        self._paused_until_s = float("-inf")
        self.refused = 0
        """Calls that were refused so far."""

    @property
    def limit(self) -> int:
        """Calls that may be under way, at least 1."""
        return int(self._limit)

    @property
    def has_room(self) -> bool:
        """Whether another call may leave now."""
        return len(self._under_way) < self.limit and self._clock.monotonic_s() >= self._room_from_s

    @property
    def wait_s(self) -> float | None:
        """Seconds until a pause is over or the next burst may leave; None where only answers are waited for."""
        left_s = self._room_from_s - self._clock.monotonic_s()
        return left_s if left_s > 0 else None

    @property
    def _room_from_s(self) -> float:
        """When calls may leave, as far as time goes."""
        paced = self._ceiling is not None and not self._burst_left
        return max(self._paused_until_s, self._next_burst_s) if paced else self._paused_until_s

    def begin(self, cell: int) -> None:
        """A call of the cell leaves."""
        now_s = self._clock.monotonic_s()
        self._under_way[cell] = (self._epoch, now_s)
        if now_s >= self._next_burst_s:
            self._burst_left = ceil(self._limit / BURSTS)
            self._next_burst_s = now_s + self._round_s * self._burst_left / (self._limit * PACE_GAIN)
        self._burst_left = max(0, self._burst_left - 1)
        if len(self._under_way) >= self.limit:
            self._to_grow = self.limit

    def end(self, cell: int, ending: Answer | Failure | None) -> None:
        """The cell's call has ended; None: nobody knows how."""
        call = self._under_way.pop(cell, None)
        if call is None:
            return
        epoch, began_s = call
        if isinstance(ending, Answer):
            round_s = self._clock.monotonic_s() - began_s
            self._round_s += (round_s - self._round_s) * (ROUND_WEIGHT if self._round_s else 1.0)
            self._in_a_row = self._pauses = 0
            if self._to_grow:
                self._to_grow -= 1
                self._grow()
        elif ending is not None and ending.reason in REFUSALS:
            self._refuse(epoch, ending.retry_after_ms)

    def _grow(self) -> None:
        """One answer's share of what a round of answers (as many as may be under way) adds."""
        if self._ceiling is None:
            step = self._limit
        elif self._limit < self._ceiling:
            step = max(1.0, (self._ceiling - self._limit) / 2)
        else:
            above = self._limit - self._ceiling
            step = 1 / PROBE_ROUNDS if above < 1 else min(above, max(1.0, self._limit * GROWTH_MAX))
        self._limit = min(self._most, self._limit + step / self._limit)

    def _refuse(self, epoch: int, retry_after_ms: int) -> None:
        self.refused += 1
        if not self._in_a_row:
            self._round = self.limit
        self._in_a_row += 1
        if self._in_a_row >= self._round:
            self._pause(retry_after_ms)
        elif epoch == self._epoch:
            # What was under way when the refusal came was too much by at least one.
            self._shrink(min(self._limit, len(self._under_way)), DECREASE)

    def _shrink(self, ceiling: float, share: float) -> None:
        self._epoch += 1
        self._ceiling = max(1.0, ceiling)
        self._limit = max(1.0, ceiling * share)

    def _pause(self, retry_after_ms: int) -> None:
        wait_ms = retry_after_ms or PAUSE_MS * 2 ** min(self._pauses, 16)
        self._paused_until_s = self._clock.monotonic_s() + min(wait_ms, PAUSE_MAX_MS) / 1_000
        self._pauses += 1
        self._in_a_row = 0
        self._shrink(self._limit, PAUSED_SHARE)


class ModelCalls(NamedTuple):
    """How many calls a run may have under way to a model; `model` is its index in the spec."""

    model: int
    calls_max: int


class CallWindows:
    """The windows of a run's models in one worker; a run that wants it otherwise has none."""

    def __init__(self, most: int, clock: Clock, model_of: Callable[[int], int], *, fixed: bool) -> None:
        """`model_of` gives the index of a cell's model; `fixed`: keep to `most` whatever is refused."""
        self._most = most
        self._clock = clock
        self.model_of = model_of
        self._fixed = fixed
        self._windows: dict[int, CallWindow] = {}

    def admits(self, cell: int) -> bool:
        """Whether a call of the cell may leave now."""
        return self._fixed or self.of(self.model_of(cell)).has_room

    def of(self, model: int) -> CallWindow:
        """The window of a model."""
        window = self._windows.get(model)
        if window is None:
            window = self._windows[model] = CallWindow(self._most, self._clock)
        return window

    def begin(self, cell: int) -> None:
        """A call of the cell leaves."""
        if not self._fixed:
            self.of(self.model_of(cell)).begin(cell)

    def end(self, cell: int, ending: Answer | Failure | None) -> None:
        """The cell's call has ended; None: nobody knows how."""
        if not self._fixed:
            self.of(self.model_of(cell)).end(cell, ending)

    def found(self) -> tuple[ModelCalls, ...]:
        """The limits of models that have refused a call."""
        windows = sorted(self._windows.items())
        return tuple(ModelCalls(model, window.limit) for model, window in windows if window.refused)
