"""The states of a run and of a cell, and which of them may follow which: written down once, here."""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    """Accepted; no cell has been claimed."""
    RUNNING = "running"
    """Cells are under way."""
    CANCELLING = "cancelling"
    """Told to stop; calls under way are being ended."""
    COMPLETED = "completed"
    """Ended with at least one cell done."""
    FAILED = "failed"
    """Ended without a single cell done."""
    CANCELLED = "cancelled"
    """Ended by cancel."""


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


FOLLOWERS: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.CANCELLING, RunStatus.CANCELLED}),
    RunStatus.RUNNING: frozenset({RunStatus.CANCELLING, RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.CANCELLING: frozenset({RunStatus.CANCELLED}),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}

ENDED = frozenset(status for status, followers in FOLLOWERS.items() if not followers)
"""States that a run never leaves."""

CLAIMABLE = frozenset({RunStatus.PENDING, RunStatus.RUNNING})
"""States in which new cells of a run may be claimed."""


class IllegalTransition(AssertionError):
    """A run was about to take a step that the state machine does not have: a fault of this service."""


def check_transition(old: RunStatus, new: RunStatus) -> None:
    """Raise IllegalTransition unless `new` may follow `old`."""
    if new not in FOLLOWERS[old]:
        raise IllegalTransition(f"a run that is {old.value} cannot become {new.value}")


def final_status(old: RunStatus, cells_done: int) -> RunStatus:
    """How a run ends in which nothing is left to do.

    CANCELLED after a cancel, COMPLETED with at least one cell done, FAILED with none.
    """
    if old is RunStatus.CANCELLING:
        return RunStatus.CANCELLED
    return RunStatus.COMPLETED if cells_done else RunStatus.FAILED
