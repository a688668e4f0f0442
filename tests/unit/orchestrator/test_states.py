import pytest

from services.orchestrator.states import (
    CLAIMABLE,
    ENDED,
    FOLLOWERS,
    IllegalTransition,
    RunStatus,
    check_transition,
    final_status,
)


def test_ended_states_are_never_left_and_every_other_state_can_end() -> None:
    assert {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED} == ENDED
    for status in set(RunStatus) - ENDED:
        assert FOLLOWERS[status]
    assert not CLAIMABLE & ENDED


@pytest.mark.parametrize("old", RunStatus)
@pytest.mark.parametrize("new", RunStatus)
def test_every_step_is_either_listed_or_refused(old: RunStatus, new: RunStatus) -> None:
    if new in FOLLOWERS[old]:
        check_transition(old, new)
    else:
        with pytest.raises(IllegalTransition, match=old.value):
            check_transition(old, new)


def test_how_a_run_ends() -> None:
    assert final_status(RunStatus.RUNNING, 1) is RunStatus.COMPLETED
    assert final_status(RunStatus.RUNNING, 0) is RunStatus.FAILED
    assert final_status(RunStatus.CANCELLING, 5) is RunStatus.CANCELLED
