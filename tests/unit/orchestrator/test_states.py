import pytest

from services.orchestrator.states import (
    CLAIMABLE,
    ENDED,
    STEPS,
    IllegalTransition,
    RunStatus,
    Step,
    check_step,
    final_status,
    follower,
    may,
)

ASKED = (Step.CANCEL, Step.PAUSE, Step.RESUME, Step.RETRY, Step.DELETE)


def test_ended_states_are_left_by_a_retry_only_and_every_other_state_can_end() -> None:
    assert {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.EXHAUSTED} == ENDED
    for status in ENDED:
        leaving = {step for step, row in STEPS.items() if row.get(status, {status}) != {status}}
        assert leaving == {Step.RETRY}
    for status in set(RunStatus) - ENDED:
        assert STEPS[Step.CANCEL][status] == {RunStatus.CANCELLING}
    assert not CLAIMABLE & ENDED


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("old", RunStatus)
def test_every_step_is_either_listed_or_refused(step: Step, old: RunStatus) -> None:
    for new in RunStatus:
        if new in STEPS[step].get(old, ()):
            check_step(step, old, new)
        else:
            with pytest.raises(IllegalTransition, match=old.value):
                check_step(step, old, new)


@pytest.mark.parametrize("step", ASKED)
def test_what_people_ask_for_has_one_outcome_and_asked_twice_changes_nothing_more(step: Step) -> None:
    for status in RunStatus:
        if may(step, status):
            after = follower(step, status)
            assert step is Step.RETRY or follower(step, after) is after


def test_how_a_run_ends() -> None:
    assert final_status(RunStatus.RUNNING, 1) is RunStatus.COMPLETED
    assert final_status(RunStatus.PAUSED, 0) is RunStatus.FAILED
    assert final_status(RunStatus.CANCELLING, 5) is RunStatus.CANCELLED
    assert final_status(RunStatus.EXHAUSTING, 5) is RunStatus.EXHAUSTED
