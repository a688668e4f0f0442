"""The states of a run and of a cell, and which of them may follow which: written down once, here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    """Accepted; no cell has been claimed."""
    RUNNING = "running"
    """Cells are under way."""
    PAUSED = "paused"
    """Told to wait: calls under way end as they do, no further one is made."""
    CANCELLING = "cancelling"
    """Told to stop; calls under way are being ended."""
    EXHAUSTING = "exhausting"
    """Its money is used up: calls under way end as they do, no further one is made."""
    COMPLETED = "completed"
    """Ended with at least one cell done."""
    FAILED = "failed"
    """Ended without a single cell done."""
    CANCELLED = "cancelled"
    """Ended by cancel."""
    EXHAUSTED = "exhausted"
    """Ended because its money was used up; cells are left without a result."""


class CellStatus(StrEnum):
    """How a cell ended. A cell without a result has not ended."""

    DONE = "done"
    """It has an answer."""
    FAILED = "failed"
    """Its last attempt failed."""
    UNKNOWN = "unknown"
    """It may have been paid for, and its answer was lost."""
    CANCELLED = "cancelled"
    """It was under way when the run was cancelled."""


class Step(StrEnum):
    """What can happen to a run. The first five are asked for by people, the others are taken by workers."""

    CANCEL = "cancelled"
    PAUSE = "paused"
    RESUME = "resumed"
    RETRY = "retried"
    DELETE = "deleted"
    CLAIM = "claimed"
    """Its first cells are claimed."""
    EXHAUST = "stopped for lack of money"
    """A budget has no room for another call."""
    END = "ended"
    """Nothing is left to do."""


_P, _R, _W, _X = RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.CANCELLING
_C, _F, _N = RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED
_S, _E = RunStatus.EXHAUSTING, RunStatus.EXHAUSTED

STEPS: Mapping[Step, Mapping[RunStatus, frozenset[RunStatus]]] = {
    step: {old: frozenset(new) for old, new in row.items()}
    for step, row in {
        Step.CANCEL: {_P: {_X}, _R: {_X}, _W: {_X}, _S: {_X}, _X: {_X}, _C: {_C}, _F: {_F}, _N: {_N}, _E: {_E}},
        Step.PAUSE: {_P: {_W}, _R: {_W}, _W: {_W}},
        Step.RESUME: {_P: {_P}, _R: {_R}, _W: {_R}},
        Step.RETRY: {_C: {_R}, _F: {_R}, _N: {_R}, _E: {_R}},
        Step.DELETE: {_C: {_C}, _F: {_F}, _N: {_N}, _E: {_E}},
        Step.CLAIM: {_P: {_R}, _R: {_R}},
        Step.EXHAUST: {_R: {_S}},
        Step.END: {_R: {_C, _F}, _W: {_C, _F}, _S: {_E}, _X: {_N}},
    }.items()
}
"""For each step the states in which it may be taken, and those that it may lead to. A step that leads where the run is
already changes nothing; one that is not listed is refused."""

ENDED = frozenset(STEPS[Step.DELETE])
"""States in which nothing of a run is under way. Only a retry leaves them."""

CLAIMABLE = frozenset(STEPS[Step.CLAIM])
"""States in which cells of a run may be claimed."""


STOPPING = frozenset({RunStatus.CANCELLING, RunStatus.EXHAUSTING})
"""States in which no further call is made, for ever, and ranges end with cells that have no result."""


class IllegalTransition(AssertionError):
    """A worker was about to take a step that the state machine does not have: a fault of this service."""


def may(step: Step, status: RunStatus) -> bool:
    """Whether a step may be taken in a state."""
    return status in STEPS[step]


def follower(step: Step, status: RunStatus) -> RunStatus:
    """The state after a step that has one outcome. Raises IllegalTransition where it may not be taken."""
    check_step(step, status)
    (after,) = STEPS[step][status]
    return after


def check_step(step: Step, old: RunStatus, new: RunStatus | None = None) -> None:
    """Raise IllegalTransition unless the step may be taken in a state, and may lead to `new` where that is given."""
    if not may(step, old) or (new is not None and new not in STEPS[step][old]):
        raise IllegalTransition(f"a run that is {old.value} cannot be {step.value}{f' as {new.value}' if new else ''}")


def final_status(old: RunStatus, cells_done: int) -> RunStatus:
    """How a run ends in which nothing is left to do.

    CANCELLED after a cancel, EXHAUSTED for lack of money, else COMPLETED with at least one cell done, FAILED with none.
    """
    if old is RunStatus.CANCELLING:
        return RunStatus.CANCELLED
    if old is RunStatus.EXHAUSTING:
        return RunStatus.EXHAUSTED
    return RunStatus.COMPLETED if cells_done else RunStatus.FAILED
