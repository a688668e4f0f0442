"""A ledger worked by hand: runs are started, ranges claimed and outcomes written as a worker would."""

from __future__ import annotations

from collections.abc import Sequence

from services.orchestrator.calls import Money, Timing, Usage
from services.orchestrator.ledger import (
    CellResult,
    CellScores,
    Claim,
    ClaimRequest,
    Sent,
    ShardKey,
    Write,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.records import ExperimentRecord, RunRecord, Statistics
from services.orchestrator.states import CellStatus, RunStatus, Step
from services.orchestrator.store import SqlLedger
from services.runtime.errors import NotFound
from services.runtime.requests import RequestKey

PROJECT = "prj_1"
LEASE_MS = 15_000
NO_KEY = RequestKey(PROJECT, "Test", "")


async def start(
    ledger: SqlLedger,
    run_id: str = "run_1",
    *,
    cells: int = 10,
    concurrency: int = 4,
    project_id: str = PROJECT,
    experiment_id: str = "exp_1",
    reuse: bool = False,
) -> str:
    """Start a run, with its experiment where that is missing; the id of the run that there is then."""
    record = ExperimentRecord(experiment_id, project_id, "a study", "", "hash", cells, 1, 1)
    try:
        await ledger.get_experiment(project_id, experiment_id)
    except NotFound:
        await ledger.create_experiment(record, b"{}", key=NO_KEY, payload=b"", answer=lambda _: b"")
    run = RunRecord(
        run_id=run_id,
        project_id=project_id,
        experiment_id=experiment_id,
        experiment_name="a study",
        status=RunStatus.PENDING,
        spec_hash="hash",
        limits=RunLimits(concurrency=concurrency).in_force(),
        user_id="usr_1",
        key_id="",
        delegation_id="dlg_1",
        created_us=7,
        last_sequence=1,
        statistics=Statistics(cells_total=cells),
    )
    return (await ledger.start_run(run, NO_KEY, b"", lambda found: found.run_id.encode(), reuse=reuse)).decode()


async def claim(
    ledger: SqlLedger, worker: str = "w1", *, extend: Sequence[str] = (), capacity: int = 100
) -> list[Claim]:
    """Renew the lease and claim."""
    await ledger.heartbeat(worker, LEASE_MS)
    return await ledger.claim(
        ClaimRequest(worker, capacity, tuple(extend), shard_cells=4, grant_max=64, takeovers_max=16)
    )


async def ask(
    ledger: SqlLedger, step: Step, run_id: str = "run_1", *, project_id: str = PROJECT, unknown: bool = False
) -> RunRecord:
    """What people ask of a run; the run as it is then. Its last state where it is deleted."""
    before = await ledger.get_run(project_id, run_id)
    match step:
        case Step.CANCEL:
            await ledger.cancel_run(project_id, run_id, NO_KEY, b"", lambda _: b"")
        case Step.PAUSE:
            await ledger.pause_run(project_id, run_id, NO_KEY, b"", lambda _: b"")
        case Step.RESUME:
            await ledger.resume_run(project_id, run_id, "dlg_2", NO_KEY, b"", lambda _: b"")
        case Step.RETRY:
            await ledger.retry_run(project_id, run_id, "dlg_2", NO_KEY, b"", lambda *_: b"", unknown=unknown)
        case _:
            await ledger.delete_run(project_id, run_id, NO_KEY, b"")
            return before
    return await ledger.get_run(project_id, run_id)


async def write(ledger: SqlLedger, *writes: Write, worker: str = "w1") -> list[bool]:
    """Commit, and say what was accepted."""
    (answers,) = await ledger.commit(worker, [writes])
    return answers


def sent(shard: ShardKey, *cells: int, attempt: int = 1) -> list[Write]:
    """First calls of cells."""
    return [Sent(shard, cell, attempt, "nonce") for cell in cells]


def result(
    cell: int,
    status: CellStatus = CellStatus.DONE,
    *,
    attempt: int = 1,
    cost: int = 5,
    run_id: str = "run_1",
    settled: bool = True,
) -> CellResult:
    """A result."""
    done = status is CellStatus.DONE
    return CellResult(
        run_id,
        cell,
        attempt,
        model=0,
        status=status,
        attempts=attempt,
        usage=Usage(input_tokens=3, output_tokens=2) if done else Usage(),
        cost=Money(cost if done else 0),
        timing=Timing(latency_us=1_000 if done else 0),
        error_reason="" if done else "PROVIDER_ERROR",
        settled=settled,
        answer=b"answer" if done else b"",
        error=b"" if done else b"error",
    )


def scores(*cells: int, run_id: str = "run_1") -> list[Write]:
    """Scores of cells."""
    return [CellScores(run_id, cell, b"scores") for cell in cells]
