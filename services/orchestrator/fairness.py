"""Who may have calls under way: the least-served tenant comes first, then its least-served run.

Some of a worker's slots are kept for runs that have none yet: however much a run takes, the next one begins at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run with unclaimed cells and free slots. `slots` are the calls that its live grants allow under way."""

    run_id: str
    project_id: str
    concurrency: int
    slots: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Holder:
    """A run in a worker. `wants`: it could use more slots than it has."""

    run_id: str
    project_id: str
    slots: int
    priority: int
    wants: bool


def claim_order(candidates: Iterable[Candidate], slots_of_project: Mapping[str, int]) -> list[Candidate]:
    """Runs in the order in which to try to grant them slots.

    The project with the fewest granted slots comes first, whatever its runs' priorities; within it the run with the
    highest priority, and among equals the one with the fewest slots; the older run (ids are time-ordered) wins a tie.
    """
    return sorted(candidates, key=lambda run: _turn(run, slots_of_project))


def _turn(run: Candidate | Holder, slots_of_project: Mapping[str, int]) -> tuple[int, int, int, str]:
    return slots_of_project.get(run.project_id, 0), -run.priority, run.slots, run.run_id


def grant(candidate: Candidate, *, capacity: int, grant_max: int) -> int:
    """Slots to grant: what the run has left, at most `grant_max` and what the worker has left (`capacity`)."""
    return max(0, min(grant_max, capacity, candidate.concurrency - candidate.slots))


def room_for(candidate: Candidate, *, capacity: int, reserved: int) -> int:
    """What a worker with `capacity` for all runs and `reserved` for those without slots has for this one.

    A run gets half of the reserve, so that something is left for the run after it.
    """
    return capacity if candidate.slots else max(capacity, -(-reserved // 2))


def to_give_back(ending: int, mine: Holder, others: Sequence[Holder], free: int) -> int:
    """How many slots of a range that has ended a run hands back to the ledger, for others.

    `ending` are the range's slots, `mine` the run as it stands with them, `others` the worker's other runs, and `free`
    what the worker has for all runs; below 0 where its reserve is in use, which the most-served run fills up again.
    Where nothing is free, it levels with the least-served run that wants more; who gets the slots is for `claim_order`.
    """
    of_project: Counter[str] = Counter()
    for run in (mine, *others):
        of_project[run.project_id] += run.slots
    if free < 0:
        served_most = all(_turn(mine, of_project) >= _turn(other, of_project) for other in others)
        return min(ending, -free) if served_most else 0
    if free:
        return 0
    more = max((_levelling(ending, mine, other, of_project) for other in others if other.wants), default=0)
    return max(0, min(ending, more))


def _levelling(ending: int, mine: Holder, other: Holder, of_project: Mapping[str, int]) -> int:
    """Slots that make a run and another one alike, or their tenants; below 1 where the other has as many or more."""
    if other.project_id != mine.project_id:
        return (of_project[mine.project_id] - of_project[other.project_id]) // 2
    if other.priority != mine.priority:
        return ending if other.priority > mine.priority else 0
    return (mine.slots - other.slots) // 2
