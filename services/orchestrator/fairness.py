"""Whose cells are claimed next: the least-served tenant, then its least-served run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run with unclaimed cells. `slots` are the calls that live grants of the run may have under way."""

    run_id: str
    project_id: str
    concurrency: int
    slots: int


def claim_order(candidates: Iterable[Candidate], slots_of_project: dict[str, int]) -> list[Candidate]:
    """The runs that may be granted slots, in the order in which to try them.

    The project with the fewest granted slots comes first, and within it the run with the fewest; the older run (ids are
    time-ordered) wins a tie. Runs at their concurrency are left out: the sum of live grants never exceeds it.
    """
    free = [candidate for candidate in candidates if candidate.slots < candidate.concurrency]
    return sorted(free, key=lambda run: (slots_of_project.get(run.project_id, 0), run.slots, run.run_id))


def slots_by_project(candidates: Iterable[Candidate]) -> dict[str, int]:
    """Granted slots, summed over each project's runs."""
    slots: defaultdict[str, int] = defaultdict(int)
    for candidate in candidates:
        slots[candidate.project_id] += candidate.slots
    return dict(slots)


def grant(candidate: Candidate, *, capacity: int, grant_max: int) -> int:
    """Slots to grant: what the run has left, at most `grant_max` and what the worker has left (`capacity`)."""
    return max(0, min(grant_max, capacity, candidate.concurrency - candidate.slots))
