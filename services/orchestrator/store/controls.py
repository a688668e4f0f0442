"""What people ask of a run: cancel, pause, resume, retry, delete. Each is one step of a transaction.

Which of them a state admits, and where it leads, stands in `states.STEPS`. All raise NotFound, and WrongState where the
state does not admit it; one that has nothing to change leaves the run as it is.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, exists, select, update

from services.orchestrator.records import EventKind, RunRecord
from services.orchestrator.states import ENDED, STEPS, RunStatus, Step, follower, may
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import statistics_of
from services.orchestrator.store.runs import end_run_if_done, event_row, get_run, lock_progress, take_step
from services.runtime.errors import NotFound, WrongState

_INSTEAD = {
    Step.PAUSE: "only a run that is under way can wait",
    Step.RESUME: "an ended run goes on by a retry of the cells that have no answer",
    Step.RETRY: "wait until it has ended, or cancel it",
    Step.DELETE: "cancel it, or wait until it has ended",
}


def cancel_run(connection: Connection, project_id: str, run_id: str, now_us: int) -> RunRecord:
    """Tell a run to stop; one that nobody works on ends at once. An ended run stays as it is."""
    progress = _locked(connection, project_id, run_id, Step.CANCEL)
    status = RunStatus(progress["status"])
    if status not in ENDED:
        _go(connection, progress, Step.CANCEL)
        end_run_if_done(connection, progress, now_us)
    return get_run(connection, project_id, run_id)


def pause_run(connection: Connection, project_id: str, run_id: str, now_us: int) -> RunRecord:
    """Tell a run to wait: no further call is made, those under way end as they do."""
    progress = _locked(connection, project_id, run_id, Step.PAUSE)
    if _go(connection, progress, Step.PAUSE):
        _tell(connection, progress, EventKind.PAUSED, now_us)
    return get_run(connection, project_id, run_id)


def resume_run(connection: Connection, project_id: str, run_id: str, now_us: int, *, delegation_id: str) -> RunRecord:
    """Let a paused run go on, acting under this delegation."""
    progress = _locked(connection, project_id, run_id, Step.RESUME)
    if _go(connection, progress, Step.RESUME):
        _tell(connection, progress, EventKind.RESUMED, now_us)
        _act_under(connection, run_id, delegation_id)
    return get_run(connection, project_id, run_id)


def retry_run(
    connection: Connection, project_id: str, run_id: str, now_us: int, *, delegation_id: str, unknown: bool
) -> int:
    """Let an ended run dispatch the cells anew that have no answer, and score answers that a cancel left unscored.

    They are claimed range by range like new ones; until then they keep their results. Cells with an unknown outcome
    are among them only where `unknown` says so. Returns how many cells there are; for none the run stays ended.
    """
    progress = _locked(connection, project_id, run_id, Step.RETRY)
    statistics = statistics_of(progress)
    cells = statistics.cells_total - statistics.scored - (0 if unknown else statistics.unknown)
    if cells:
        _act_under(connection, run_id, delegation_id)
        anew = {"retry_next": 0, "retry_end": progress["next_cell"], "retry_unknown": unknown}
        _go(connection, progress, Step.RETRY, ended_us=0, failure="", **anew)
        _tell(connection, progress, EventKind.RETRIED, now_us)
    return cells


def is_worked_on(connection: Connection, run_id: str) -> bool:
    """Whether a worker holds cells of a run."""
    held = exists().where(t.shards.c.run_id == run_id, t.shards.c.worker_id != "")
    return bool(connection.execute(select(held)).scalar_one())


def _locked(connection: Connection, project_id: str, run_id: str, step: Step) -> dict[str, Any]:
    """The locked progress row of a run that may take a step."""
    get_run(connection, project_id, run_id)
    progress = lock_progress(connection, run_id)
    if progress is None:
        raise NotFound("run", run_id)
    check_allowed(run_id, RunStatus(progress["status"]), step)
    return progress


def check_allowed(run_id: str, status: RunStatus, step: Step) -> None:
    """Raise WrongState unless people may ask for a step in a state."""
    if not may(step, status):
        states = ", ".join(sorted(status.value for status in STEPS[step]))
        raise WrongState(
            "WRONG_STATE",
            f"run {run_id} is {status.value} and cannot be {step.value}, which takes a run that is {states}: "
            f"{_INSTEAD[step]}",
            subject=f"run:{run_id}",
            metadata={"status": status.value},
        )


def _go(connection: Connection, progress: dict[str, Any], step: Step, **values: Any) -> bool:
    """Take a step; False where it leads to where the run is."""
    old = RunStatus(progress["status"])
    new = follower(step, old)
    if new is old:
        return False
    take_step(connection, progress["run_id"], step, old, new, **values)
    progress |= {"status": new.value, **values}
    return True


def _tell(connection: Connection, progress: dict[str, Any], event: EventKind, now_us: int) -> None:
    progress["last_sequence"] += 1
    connection.execute(
        update(t.run_progress)
        .where(t.run_progress.c.run_id == progress["run_id"])
        .values(last_sequence=progress["last_sequence"])
    )
    row = event_row(progress["run_id"], progress["last_sequence"], event, statistics_of(progress), now_us)
    connection.execute(t.events.insert(), row)


def _act_under(connection: Connection, run_id: str, delegation_id: str) -> None:
    """Let the run act under another delegation where it is claimed from now on."""
    connection.execute(update(t.runs).where(t.runs.c.run_id == run_id).values(delegation_id=delegation_id))
