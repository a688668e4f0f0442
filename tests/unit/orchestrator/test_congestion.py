"""A run finds how many calls a provider takes at once, before providers that only this file knows."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.orchestrator.calls import Answer, Failure
from services.orchestrator.congestion import BURSTS, PAUSE_MAX_MS, START_CALLS, CallWindow, CallWindows, ModelCalls
from services.runtime.clock import ManualClock
from tests.support.orchestrator import answer, failure

ANSWER = answer()
TOO_MUCH = failure("RATE_LIMITED")
LATENCY_S = 0.2
REFUSED_AFTER_S = 0.005


@dataclass
class Story:
    """A window before a provider, in virtual time."""

    window: CallWindow
    clock: ManualClock
    admits: Callable[[int, float], bool]
    """Whether the provider takes another call, with so many under way at a time."""
    rng: random.Random
    refusal: Failure = TOO_MUCH
    answered: int = 0
    refused: int = 0
    _at_provider: int = 0
    _cell: int = 0
    _ends: list[tuple[float, int, bool]] | None = None

    def play(self, seconds: float) -> tuple[float, float]:
        """Answers a second and the share of refused calls, of the time from now on."""
        before = (self.answered, self.refused)
        end_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < end_s:
            self._send()
            self._step(end_s)
        answered, refused = self.answered - before[0], self.refused - before[1]
        return answered / seconds, refused / max(1, answered + refused)

    def _send(self) -> None:
        if self._ends is None:
            self._ends = []
        while self.window.has_room:
            self._cell += 1
            self.window.begin(self._cell)
            now_s = self.clock.monotonic_s()
            taken = self.admits(self._at_provider, now_s)
            self._at_provider += taken
            after_s = LATENCY_S * self.rng.uniform(0.7, 1.3) if taken else REFUSED_AFTER_S
            heapq.heappush(self._ends, (now_s + after_s, self._cell, taken))

    def _step(self, end_s: float) -> None:
        """Go on to the next ending, or to the end of a pause."""
        assert self._ends is not None
        now_s = self.clock.monotonic_s()
        at_s = min(self._ends[0][0] if self._ends else end_s, now_s + (self.window.wait_s or end_s - now_s))
        self.clock.advance(max(0.0, at_s - now_s) + 1e-6)
        while self._ends and self._ends[0][0] <= self.clock.monotonic_s():
            _, cell, taken = heapq.heappop(self._ends)
            self._at_provider -= taken
            self.answered += taken
            self.refused += not taken
            self.window.end(cell, ANSWER if taken else self.refusal)


def story(
    admits: Callable[[int, float], bool], *, most: int = 200, seed: int = 1, refusal: Failure = TOO_MUCH
) -> Story:
    clock = ManualClock()
    return Story(CallWindow(most, clock), clock, admits, random.Random(seed), refusal)


@settings(max_examples=10, deadline=None)
@given(st.integers(10, 150), st.integers(0, 10_000))
def test_it_stays_near_what_a_provider_takes_at_once(at_once: int, seed: int) -> None:
    told = story(lambda under_way, _: under_way < at_once, seed=seed)
    told.play(10)

    per_s, refused = told.play(40)

    assert per_s > 0.85 * at_once / LATENCY_S
    assert refused < 0.02


def test_few_calls_are_refused_from_the_first_one_on() -> None:
    told = story(lambda under_way, _: under_way < 50)

    assert told.play(30)[1] < 0.02


def test_nothing_is_held_back_where_nothing_is_refused() -> None:
    told = story(lambda under_way, _: True)
    told.play(2)

    assert told.window.limit == 200
    assert told.play(5)[0] > 0.95 * 200 / LATENCY_S


def test_it_grows_again_when_the_provider_takes_more() -> None:
    at_once = 20
    told = story(lambda under_way, _: under_way < at_once)
    told.play(20)
    assert told.window.limit <= 21

    at_once = 120
    told.play(20)

    assert told.play(20)[0] > 0.85 * at_once / LATENCY_S


def test_calls_of_a_provider_that_counts_them_by_the_minute_are_not_sent_in_vain() -> None:
    left = {0: 0}

    def admits(under_way: int, now_s: float) -> bool:
        minute = int(now_s // 60)
        left.setdefault(minute, 300)
        left[minute] -= 1
        return left[minute] >= 0

    told = story(admits, refusal=TOO_MUCH._replace(retry_after_ms=10_000))

    per_s, refused = told.play(600)

    assert per_s > 0.85 * 300 / 60
    assert refused < 0.25


def test_a_provider_that_answers_nothing_is_asked_less_and_less() -> None:
    told = story(lambda under_way, _: False)
    told.play(600)
    before = told.refused

    told.play(600)

    assert told.window.limit == 1
    assert told.refused - before <= 1 + 600_000 // PAUSE_MAX_MS


@given(
    st.lists(st.sampled_from(["begin", "answer", "refuse", "fail", "lose", "wait"]), max_size=200), st.integers(1, 40)
)
def test_the_limit_stays_between_one_and_the_runs_own(steps: list[str], most: int) -> None:
    clock = ManualClock()
    window = CallWindow(most, clock)
    endings: dict[str, Answer | Failure | None] = {
        "answer": ANSWER,
        "refuse": TOO_MUCH,
        "fail": failure("PROVIDER_ERROR"),
        "lose": None,
    }
    open_calls: list[int] = []
    for number, step in enumerate(steps):
        if step == "wait":
            clock.advance(1)
        elif step == "begin":
            if window.has_room:
                window.begin(number)
                open_calls.append(number)
        elif open_calls:
            window.end(open_calls.pop(0), endings[step])
        assert 1 <= window.limit <= most


def test_answers_that_come_together_are_not_followed_by_calls_that_leave_together() -> None:
    clock = ManualClock()
    window = CallWindow(100, clock)
    for cell in range(START_CALLS):
        window.begin(cell)
    clock.advance(LATENCY_S)
    window.end(0, TOO_MUCH)
    for cell in range(1, START_CALLS):
        window.end(cell, ANSWER)

    leaves_s: list[float] = []
    while len(leaves_s) < window.limit:
        while window.has_room:
            window.begin(1_000 + len(leaves_s))
            leaves_s.append(clock.monotonic_s())
        clock.advance((window.wait_s or 0.0) + 1e-6)

    burst = max(Counter(leaves_s).values())
    assert burst == -(-window.limit // BURSTS)
    assert LATENCY_S * 0.7 < leaves_s[-1] - leaves_s[0] < LATENCY_S


def test_failures_that_are_no_refusals_change_nothing() -> None:
    window = CallWindow(100, ManualClock())
    for cell, ending in enumerate([failure("PROVIDER_ERROR"), failure("BUDGET_EXCEEDED"), None, failure("CANCELLED")]):
        window.begin(cell)
        window.end(cell, ending)
    assert (window.limit, window.refused, window.has_room) == (START_CALLS, 0, True)


@pytest.mark.parametrize("fixed", [False, True])
def test_models_have_windows_of_their_own_unless_the_run_is_fixed(fixed: bool) -> None:
    windows = CallWindows(100, ManualClock(), lambda cell: cell % 2, fixed=fixed)
    for cell in range(0, 2 * START_CALLS, 2):
        windows.begin(cell)

    assert windows.admits(100) is fixed
    assert windows.admits(101)
    for cell in range(0, 2 * START_CALLS, 2):
        windows.end(cell, TOO_MUCH)
    assert windows.found() == (() if fixed else (ModelCalls(0, windows.of(0).limit),))
