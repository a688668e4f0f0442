import random

import pytest

from services.orchestrator.calls import NO_USAGE, AttemptState, Failure, Money, ResolvedAttempt
from services.orchestrator.outcomes import (
    HOPELESS_REASONS,
    Again,
    AskAgain,
    CellHistory,
    Decision,
    Drop,
    Finish,
    Resolution,
    Resolve,
    RetryPolicy,
    decide_failure,
    decide_resolution,
)
from services.orchestrator.states import CellStatus
from services.runtime.backoff import Backoff

POLICY = RetryPolicy(attempts_max=3, refusals_max=5, retry_unknown=False, backoff=Backoff(base_ms=100, cap_ms=1_000))
FRESH = CellHistory()


def failure(
    reason: str = "PROVIDER_ERROR", *, retryable: bool = True, dispatched: bool = True, retry_after_ms: int = 0
) -> Failure:
    return Failure(reason, "why", retryable, dispatched, retry_after_ms)


def decide(what: Failure, history: CellHistory = FRESH, *, cancelling: bool = False) -> Decision:
    return decide_failure(what, history, POLICY, random.Random(1), cancelling=cancelling)


def resolve(
    state: AttemptState,
    *,
    waited_ms: int = 0,
    policy: RetryPolicy = POLICY,
    history: CellHistory = FRESH,
    cancelling: bool = False,
) -> Resolution:
    attempt = ResolvedAttempt("run/0/1/1", state, NO_USAGE, Money(5))
    return decide_resolution(
        attempt, history, policy, random.Random(1), waited_ms=waited_ms, unknown_after_ms=5_000, cancelling=cancelling
    )


def test_a_passing_failure_is_tried_again_until_the_attempts_are_used_up() -> None:
    assert isinstance(decide(failure(), CellHistory(0)), Again)
    assert isinstance(decide(failure(), CellHistory(1)), Again)
    assert decide(failure(), CellHistory(2)) == Finish(CellStatus.FAILED)


def test_a_refusal_is_no_attempt_but_is_bounded_too() -> None:
    refused = failure("RATE_LIMITED", dispatched=False)

    again = decide(refused, CellHistory(counted=2, refused=3))

    assert isinstance(again, Again)
    assert again.outcome == "refused"
    assert decide(refused, CellHistory(counted=2, refused=4)) == Finish(CellStatus.FAILED)


def test_retry_info_is_obeyed() -> None:
    for dispatched in (True, False):
        again = decide(failure("RATE_LIMITED", dispatched=dispatched, retry_after_ms=60_000))
        assert isinstance(again, Again)
        assert again.delay_ms >= 60_000


@pytest.mark.parametrize("reason", sorted(HOPELESS_REASONS))
@pytest.mark.parametrize("dispatched", [True, False])
def test_a_hopeless_failure_ends_the_cell_at_once(reason: str, dispatched: bool) -> None:
    assert decide(failure(reason, dispatched=dispatched)) == Finish(CellStatus.FAILED)


def test_a_failure_that_is_not_retryable_ends_the_cell() -> None:
    assert decide(failure("DEADLINE_EXCEEDED", retryable=False)) == Finish(CellStatus.FAILED)


def test_an_id_with_a_history_is_asked_about() -> None:
    assert decide(failure("CALL_ALREADY_DISPATCHED", retryable=False, dispatched=False)) == Resolve()


def test_while_cancelling_nothing_is_tried_again() -> None:
    assert decide(failure("CANCELLED"), cancelling=True) == Finish(CellStatus.CANCELLED)
    assert decide(failure("PROVIDER_ERROR"), cancelling=True) == Finish(CellStatus.FAILED)
    assert decide(failure("CANCELLED", dispatched=False), cancelling=True) == Drop()


@pytest.mark.parametrize("state", [AttemptState.TOMBSTONED, AttemptState.RELEASED])
def test_a_call_that_never_left_is_dispatched_again(state: AttemptState) -> None:
    again = resolve(state)

    assert isinstance(again, Again)
    assert again.outcome == "unsent"
    assert resolve(state, cancelling=True) == Drop()


def test_a_settled_call_whose_answer_is_lost_is_unknown() -> None:
    assert resolve(AttemptState.SETTLED) == Finish(CellStatus.UNKNOWN)
    assert resolve(AttemptState.SETTLED, cancelling=True) == Finish(CellStatus.CANCELLED)


def test_a_held_call_is_asked_about_until_it_is_given_up() -> None:
    assert resolve(AttemptState.HELD, waited_ms=4_999) == AskAgain()
    assert resolve(AttemptState.HELD, waited_ms=5_000) == Finish(CellStatus.UNKNOWN)
    assert resolve(AttemptState.EXPIRED) == Finish(CellStatus.UNKNOWN)


def test_an_unknown_call_is_dispatched_again_only_when_asked_to() -> None:
    policy = RetryPolicy(attempts_max=3, refusals_max=5, retry_unknown=True, backoff=POLICY.backoff)

    again = resolve(AttemptState.SETTLED, policy=policy, history=CellHistory(counted=1))

    assert isinstance(again, Again)
    assert again.outcome == "unknown"
    assert resolve(AttemptState.SETTLED, policy=policy, history=CellHistory(counted=2)) == Finish(CellStatus.UNKNOWN)


def test_a_history_knows_the_next_attempt() -> None:
    history = FRESH
    for attempt, outcome in enumerate(("refused", "unsent", "failed", "unknown", "superseded"), start=1):
        history = history.plus(outcome, attempt)

    assert history == CellHistory(counted=3, refused=1, unsent=1, last=5)
    assert history.next_attempt == 6
    assert history.plus("failed", 9).next_attempt == 10
