"""Whose cells are claimed next: the least-served tenant, then its least-served run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run with unclaimed cells and free slots. `slots` are the calls that its live grants allow under way."""

    run_id: str
    project_id: str
    concurrency: int
    slots: int
    priority: int = 0


def claim_order(candidates: Iterable[Candidate], slots_of_project: Mapping[str, int]) -> list[Candidate]:
    """Runs in the order in which to try to grant them slots.

    The project with the fewest granted slots comes first, whatever its runs' priorities; within it the run with the
    highest priority, and among equals the one with the fewest slots; the older run (ids are time-ordered) wins a tie.
    """
    return sorted(
        candidates,
        key=lambda run: (slots_of_project.get(run.project_id, 0), -run.priority, run.slots, run.run_id),
    )


def grant(candidate: Candidate, *, capacity: int, grant_max: int) -> int:
    """Slots to grant: what the run has left, at most `grant_max` and what the worker has left (`capacity`)."""
    return max(0, min(grant_max, capacity, candidate.concurrency - candidate.slots))
