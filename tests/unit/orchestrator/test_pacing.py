"""Backoff, the token bucket and the fair choice: how work is spread over time and tenants."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.fairness import Candidate, Holder, claim_order, grant, room_for, to_give_back
from services.orchestrator.limits import RunLimits
from services.orchestrator.rate import TokenBucket
from services.runtime.backoff import Backoff


@given(st.integers(1, 200), st.integers(0, 10_000), st.integers())
def test_backoff_stays_inside_its_ceiling(failures: int, at_least_ms: int, seed: int) -> None:
    backoff = Backoff(base_ms=200, cap_ms=30_000)

    delay_ms = backoff.delay_ms(failures, random.Random(seed), at_least_ms=at_least_ms)

    assert at_least_ms <= delay_ms <= at_least_ms + min(30_000, 200 * 2 ** (failures - 1))


def test_backoff_grows_and_spreads() -> None:
    backoff, rng = Backoff(base_ms=100, cap_ms=100_000), random.Random(7)

    early = [backoff.delay_ms(1, rng) for _ in range(500)]
    late = [backoff.delay_ms(8, rng) for _ in range(500)]

    assert max(early) <= 100
    assert 5_000 < sum(late) / len(late) < 7_800
    assert len(set(late)) > 400


@given(
    st.integers(1, 6_000),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), min_size=1, max_size=50),
)
def test_a_bucket_never_lets_more_through_than_its_rate_and_one_burst(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    bucket, now_s, taken = TokenBucket(rate, 0.0), 0.0, 0
    for elapsed_s, wanted in steps:
        now_s += elapsed_s
        taken += bucket.take(wanted, now_s)
        assert taken <= max(1, rate / 60) + now_s * rate / 60 + 1e-6


def test_a_bucket_says_when_the_next_call_may_leave() -> None:
    bucket = TokenBucket(60, now_s=100.0)

    assert bucket.take(5, 100.0) == 1
    assert bucket.wait_s(100.25) == pytest.approx(0.75)
    assert bucket.take(5, 100.5) == 0
    assert bucket.take(5, 101.0) == 1


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = TokenBucket(60, now_s=100.0)

    bucket.take(1, 100.0)

    assert bucket.take(1, 50.0) == 0
    assert bucket.take(1, 100.5) == 0


def test_the_least_served_tenant_comes_first_then_its_least_served_run() -> None:
    busy = Candidate("run_1", "prj_busy", concurrency=64, slots=10)
    idle = Candidate("run_2", "prj_busy", concurrency=64, slots=0)
    other = Candidate("run_3", "prj_other", concurrency=64, slots=5)

    assert claim_order([busy, idle, other], {"prj_busy": 10, "prj_other": 9}) == [other, idle, busy]
    assert claim_order([busy, idle, other], {"prj_busy": 9, "prj_other": 10}) == [idle, busy, other]


def test_priority_counts_within_a_project_only() -> None:
    low = Candidate("run_1", "prj_1", concurrency=64, slots=0)
    high = Candidate("run_2", "prj_1", concurrency=64, slots=10, priority=5)
    other = Candidate("run_3", "prj_2", concurrency=64, slots=0, priority=-5)

    assert claim_order([low, high, other], {"prj_1": 10}) == [other, high, low]


def test_a_grant_keeps_all_three_bounds() -> None:
    run = Candidate("run_1", "prj", concurrency=100, slots=90)

    assert grant(run, capacity=50, grant_max=64) == 10
    assert grant(run, capacity=3, grant_max=64) == 3
    assert grant(Candidate("run_1", "prj", 1_024, 0), capacity=500, grant_max=64) == 64
    assert grant(Candidate("run_1", "prj", 5, 7), capacity=500, grant_max=64) == 0


def test_a_run_without_slots_gets_half_of_the_reserve_and_others_nothing() -> None:
    new, served = Candidate("run_1", "prj", 64, slots=0), Candidate("run_2", "prj", 64, slots=1)

    assert room_for(new, capacity=0, reserved=32) == 16
    assert room_for(new, capacity=0, reserved=1) == 1
    assert room_for(new, capacity=40, reserved=32) == 40
    assert room_for(served, capacity=0, reserved=32) == 0


def test_the_most_served_run_fills_the_reserve_up_again() -> None:
    large, small = Holder("run_1", "prj", 224, 0, wants=True), Holder("run_2", "prj", 16, 0, wants=True)

    assert to_give_back(224, large, [small], free=-16) == 16
    assert to_give_back(16, small, [large], free=-16) == 0


@pytest.mark.parametrize(
    ("mine", "other", "back"),
    [
        (Holder("run_1", "prj", 200, 0, wants=True), Holder("run_2", "prj", 24, 0, wants=True), 88),
        (Holder("run_1", "prj", 200, 0, wants=True), Holder("run_2", "prj", 24, 0, wants=False), 0),
        (Holder("run_1", "prj", 24, 0, wants=True), Holder("run_2", "prj", 200, 0, wants=True), 0),
        (Holder("run_1", "prj", 24, 0, wants=True), Holder("run_2", "prj", 200, 1, wants=True), 24),
        (Holder("run_1", "prj", 200, 1, wants=True), Holder("run_2", "prj", 24, 0, wants=True), 0),
        # Between tenants priorities do not count.
        (Holder("run_1", "prj", 200, 9, wants=True), Holder("run_2", "other", 24, 0, wants=True), 88),
    ],
    ids=["levelled", "not wanted", "least served", "less urgent", "more urgent", "tenants"],
)
def test_a_full_worker_shares_what_it_has(mine: Holder, other: Holder, back: int) -> None:
    assert to_give_back(mine.slots, mine, [other], free=0) == back
    assert to_give_back(mine.slots, mine, [other], free=8) == 0


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["prj_1", "prj_2"])), min_size=2, max_size=6))
def test_sharing_levels_tenants_and_their_runs(shares: list[tuple[int, str]]) -> None:
    runs = [Candidate(f"run_{index}", project, 2_000, slots) for index, (slots, project) in enumerate(shares)]
    for turn in range(40 * len(runs)):
        index = turn % len(runs)
        held = [Holder(run.run_id, run.project_id, run.slots, 0, wants=True) for run in runs]
        back = to_give_back(runs[index].slots, held.pop(index), held, free=0)
        runs[index] = replace(runs[index], slots=runs[index].slots - back)
        for _ in range(back):
            first = claim_order(runs, _of_projects(runs))[0]
            runs[runs.index(first)] = replace(first, slots=first.slots + 1)

    totals = _of_projects(runs)
    assert max(totals.values()) - min(totals.values()) <= 2
    for project in totals:
        slots = [run.slots for run in runs if run.project_id == project]
        assert max(slots) - min(slots) <= 2


def _of_projects(runs: list[Candidate]) -> dict[str, int]:
    totals = dict.fromkeys((run.project_id for run in runs), 0)
    for run in runs:
        totals[run.project_id] += run.slots
    return totals


def test_limits_fill_in_defaults_and_pace_real_providers_only() -> None:
    limits = RunLimits(concurrency=8).overridden_by(RunLimits(attempts_max=1)).in_force()

    assert limits == RunLimits(concurrency=8, attempts_max=1, timeout_ms=30_000)
    assert limits.rate_for("openai") == 60
    assert limits.rate_for("mock") == 0
    assert RunLimits(requests_per_minute=600).rate_for("mock") == 600
