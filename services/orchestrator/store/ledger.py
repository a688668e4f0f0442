"""The store as the rest of the service sees it: each method is one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from sqlalchemy import Connection

from services.orchestrator.congestion import ModelCalls
from services.orchestrator.ledger import (
    Claim,
    ClaimRequest,
    Pulse,
    RunPlanRecord,
    ShardKey,
    ShardState,
    StoredAnswer,
    SweptBill,
    Write,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.pace import Latest
from services.orchestrator.records import AnswerSample, AttemptRecord, ExperimentRecord, RunEvent, RunRecord
from services.orchestrator.scores import Scored
from services.orchestrator.states import RunStatus
from services.orchestrator.store import (
    bills,
    claims,
    commit,
    controls,
    events,
    experiments,
    live_runs,
    pace,
    removal,
    results,
    runs,
    score_sets,
    shards,
    tables,
)
from services.orchestrator.store.results import ResultQuery, StoredResult
from services.orchestrator.store.score_sets import ScoreSetRecord
from services.orchestrator.store.statements import Statements
from services.runtime.database import Database
from services.runtime.requests import RememberedRequests, RequestKey

RUNS_OF_EXPERIMENT_MAX = 1_000
"""Runs of one experiment that a list or an export of its results goes through."""


class SqlLedger:
    """Experiments, runs, results and events of all projects, and the queue that workers draw from."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statements = Statements(database)
        self._requests = RememberedRequests(database, tables.request_ids)

    # -- experiments

    async def create_experiment(
        self,
        record: ExperimentRecord,
        encoded_spec: bytes,
        *,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[ExperimentRecord], bytes],
    ) -> bytes:
        """Insert an experiment and remember the answer; a repeat of the request gets the first answer."""

        def write(connection: Connection) -> bytes:
            def do() -> bytes:
                experiments.insert_spec(connection, self._database, record.project_id, record.spec_hash, encoded_spec)
                experiments.insert_experiment(connection, record)
                return answer(record)

            return self._requests.once(connection, key, payload, do)

        return await self._database.write(write)

    async def update_experiment(
        self,
        project_id: str,
        experiment_id: str,
        change: Callable[[ExperimentRecord], ExperimentRecord],
        encoded_spec: bytes | None,
        *,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[ExperimentRecord], bytes],
    ) -> bytes:
        """Change an experiment under its lock, with a new spec where one is given. Raises NotFound."""

        def write(connection: Connection) -> bytes:
            def do() -> bytes:
                record = change(experiments.get_experiment(connection, project_id, experiment_id))
                if encoded_spec is not None:
                    experiments.insert_spec(connection, self._database, project_id, record.spec_hash, encoded_spec)
                experiments.replace_experiment(connection, record)
                return answer(record)

            return self._requests.once(connection, key, payload, do)

        return await self._database.write(write)

    async def get_experiment(self, project_id: str, experiment_id: str) -> ExperimentRecord:
        """One experiment of the project; NotFound otherwise."""
        return await self._database.read(experiments.get_experiment, project_id, experiment_id)

    async def get_spec(self, project_id: str, spec_hash: str) -> bytes:
        """An encoded spec of the project."""
        return await self._database.read(experiments.get_spec, project_id, spec_hash)

    async def list_experiments(self, project_id: str, before_id: str, limit: int) -> list[ExperimentRecord]:
        """Newest first, older than `before_id` ("" for all)."""
        return await self._database.read(experiments.list_experiments, project_id, before_id, limit)

    async def delete_experiment(self, project_id: str, experiment_id: str, key: RequestKey, payload: bytes) -> None:
        """Delete an experiment with its ended runs. Raises NotFound, WrongState."""

        def do(connection: Connection) -> bytes:
            removal.delete_experiment(connection, project_id, experiment_id)
            return b""

        await self._once(key, payload, do)

    async def purge_some(self, rows_max: int) -> bool:
        """Remove some rows of deleted runs; True while there is more to do. Without any, nothing is written."""
        if not await self._database.read(removal.any_purge):
            return False
        return await self._database.write(removal.purge_some, rows_max)

    # -- runs

    async def start_run(
        self,
        record: RunRecord,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[RunRecord], bytes],
        *,
        reuse: bool = False,
    ) -> bytes:
        """Insert a run and remember the answer. Raises NotFound where the experiment has gone.

        `reuse`: where there is an identical run already, see `runs.find_identical`, the answer is about that one.
        """

        def write(connection: Connection) -> bytes:
            def do() -> bytes:
                experiments.get_experiment(connection, record.project_id, record.experiment_id)
                identical = None
                if reuse:
                    runs.lock_spec(connection, record.project_id, record.spec_hash)
                    identical = runs.find_identical(connection, record.project_id, record.spec_hash, record.limits)
                if identical is None:
                    runs.insert_run(connection, record)
                return answer(identical or record)

            return self._requests.once(connection, key, payload, do)

        return await self._database.write(write)

    async def find_identical_run(self, project_id: str, spec_hash: str, limits: RunLimits) -> RunRecord | None:
        """The run that a start with `reuse` would be answered with; None where it would start one."""
        return await self._database.read(runs.find_identical, project_id, spec_hash, limits)

    async def recall(self, key: RequestKey, payload: bytes) -> bytes | None:
        """The first answer of a request that was answered before; None for a new one, or without a request id."""
        if not key.request_id:
            return None

        def write(connection: Connection) -> bytes:
            def do() -> bytes:
                raise _NewRequestError

            return self._requests.once(connection, key, payload, do)

        try:
            return await self._database.write(write)
        except _NewRequestError:
            return None

    async def get_run(self, project_id: str, run_id: str) -> RunRecord:
        """One run of the project; NotFound otherwise."""
        return await self._database.read(runs.get_run, project_id, run_id)

    async def list_runs(
        self, project_id: str, experiment_id: str, statuses: Collection[RunStatus], before_id: str, limit: int
    ) -> list[RunRecord]:
        """Newest first, older than `before_id` ("" for all); empty filters take everything."""

        def read(connection: Connection) -> list[RunRecord]:
            return runs.list_runs(connection, project_id, experiment_id, statuses, before_id=before_id, limit=limit)

        return await self._database.read(read)

    async def cancel_run(
        self, project_id: str, run_id: str, key: RequestKey, payload: bytes, answer: Callable[[RunRecord], bytes]
    ) -> bytes:
        """Tell a run to stop. Raises NotFound."""

        def do(connection: Connection) -> bytes:
            return answer(controls.cancel_run(connection, project_id, run_id, self._database.now_us(connection)))

        return await self._once(key, payload, do)

    async def pause_run(
        self, project_id: str, run_id: str, key: RequestKey, payload: bytes, answer: Callable[[RunRecord], bytes]
    ) -> bytes:
        """Tell a run to wait. Raises NotFound, WrongState."""

        def do(connection: Connection) -> bytes:
            return answer(controls.pause_run(connection, project_id, run_id, self._database.now_us(connection)))

        return await self._once(key, payload, do)

    async def resume_run(
        self,
        project_id: str,
        run_id: str,
        delegation_id: str,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[RunRecord], bytes],
    ) -> bytes:
        """Let a paused run go on under a delegation. Raises NotFound, WrongState."""

        def do(connection: Connection) -> bytes:
            now_us = self._database.now_us(connection)
            return answer(controls.resume_run(connection, project_id, run_id, now_us, delegation_id=delegation_id))

        return await self._once(key, payload, do)

    async def is_worked_on(self, run_id: str) -> bool:
        """Whether a worker holds cells of a run."""
        return await self._database.read(controls.is_worked_on, run_id)

    async def retry_run(
        self,
        project_id: str,
        run_id: str,
        delegation_id: str,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[RunRecord, int], bytes],
        *,
        unknown: bool,
    ) -> bytes:
        """Let an ended run dispatch the cells without an answer anew; the answer is told how many. Raises as above."""

        def do(connection: Connection) -> bytes:
            now_us = self._database.now_us(connection)
            cells = controls.retry_run(
                connection, project_id, run_id, now_us, delegation_id=delegation_id, unknown=unknown
            )
            return answer(runs.get_run(connection, project_id, run_id), cells)

        return await self._once(key, payload, do)

    async def delete_run(self, project_id: str, run_id: str, key: RequestKey, payload: bytes) -> None:
        """Delete an ended run with its results. Raises NotFound, WrongState."""

        def do(connection: Connection) -> bytes:
            removal.delete_run(connection, project_id, run_id)
            return b""

        await self._once(key, payload, do)

    async def _once(self, key: RequestKey, payload: bytes, do: Callable[[Connection], bytes]) -> bytes:
        """Run `do` in a transaction, unless the request was answered before: then its first answer."""

        def write(connection: Connection) -> bytes:
            return self._requests.once(connection, key, payload, lambda: do(connection))

        return await self._database.write(write)

    # -- results and events

    async def sample_answers(self, run_id: str, cells: list[int]) -> list[AnswerSample]:
        """How long the answers of some cells of a run are, of those that have one."""

        def read(connection: Connection) -> list[AnswerSample]:
            rows = connection.execute(self._statements.sampled_answers, {"of_run": run_id, "cells": cells})
            return [AnswerSample(*row) for row in rows]

        return await self._database.read(read)

    async def page_results(self, query: ResultQuery) -> list[StoredResult]:
        """One page of a run's results."""
        return await self._database.read(results.page_results, query)

    async def get_result(self, run_id: str, cell: int) -> StoredResult | None:
        """One result with its bodies; None where the cell has not ended."""
        return await self._database.read(results.get_result, run_id, cell)

    async def newest_run(self, project_id: str) -> str:
        """The id of the project's newest run; empty where it has none."""
        return await self._database.read(live_runs.newest_run, project_id)

    async def live_runs(
        self, project_id: str, experiment_id: str, after_id: str, known: Collection[str], limit: int
    ) -> list[RunRecord]:
        """Runs that somebody watches; see `live_runs.live_runs`."""
        return await self._database.read(live_runs.live_runs, project_id, experiment_id, after_id, known, limit)

    async def latest_results(self, run_id: str, limit: int) -> Latest:
        """When the latest results were committed; see `pace.latest_results`."""
        return await self._database.read(pace.latest_results, run_id, limit)

    async def latencies(self, run_id: str, ranks: list[int]) -> list[int]:
        """The latencies of answers at these ranks, from 0 for the shortest."""
        return await self._database.read(pace.latencies, run_id, ranks)

    async def call_limits(self, run_id: str) -> list[ModelCalls]:
        """What models take at once that have refused calls; see `pace.call_limits`."""
        return await self._database.read(pace.call_limits, run_id)

    async def open_score_set(self, record: ScoreSetRecord) -> ScoreSetRecord:
        """Begin a score set, or go on with one; see `score_sets.open_score_set`."""
        return await self._database.write(score_sets.open_score_set, record)

    async def get_score_set(self, run_id: str, score_set: str) -> ScoreSetRecord | None:
        """One score set of a run; None where it has none of that name."""
        return await self._database.read(score_sets.get_score_set, run_id, score_set)

    async def list_score_sets(self, run_id: str) -> list[ScoreSetRecord]:
        """A run's score sets, by name."""
        return await self._database.read(score_sets.list_score_sets, run_id)

    async def add_scores(self, run_id: str, score_set: str, scores: Sequence[tuple[int, Scored]]) -> None:
        """Keep packed scores of cells that have none in a set. Raises NotFound where the run is gone."""
        await self._database.write(score_sets.add_scores, self._database, run_id, score_set, scores)

    async def attempts_of(self, run_id: str, cell: int) -> list[tuple[AttemptRecord, int]]:
        """A cell's attempts that did not give its result, oldest first, each with its time in microseconds UTC."""
        return await self._database.read(results.attempts_of, run_id, cell)

    async def runs_of_experiment(self, project_id: str, experiment_id: str) -> list[RunRecord]:
        """An experiment's runs, newest first, at most RUNS_OF_EXPERIMENT_MAX."""
        return await self.list_runs(project_id, experiment_id, (), "", RUNS_OF_EXPERIMENT_MAX)

    async def last_sequence(self, run_id: str) -> int:
        """The sequence of a run's latest event."""
        return await self._database.read(events.last_sequence, run_id)

    async def read_events(self, run_id: str, after: int, limit: int) -> list[RunEvent]:
        """Events in order and without a gap."""
        return await self._database.read(events.read_events, run_id, after, limit)

    # -- work

    async def heartbeat(self, worker_id: str, lease_ms: int) -> Pulse:
        """Renew a worker's lease and read what it still holds."""
        return await self._database.write(claims.heartbeat, self._database, worker_id, lease_ms * 1_000)

    async def other_workers(self, worker_id: str) -> list[str]:
        """Workers with a lease, live or not, except this one."""
        return await self._database.read(claims.other_workers, worker_id)

    async def forget_workers(self, worker_ids: Iterable[str]) -> None:
        """End the leases of workers that are known to be dead."""
        await self._database.write(claims.forget_workers, tuple(worker_ids))

    async def release(self, worker_id: str) -> None:
        """Hand everything back."""
        await self._database.write(claims.release, worker_id)

    async def claim(self, request: ClaimRequest) -> list[Claim]:
        """Ranges of cells for a worker. Where there are none, nothing is written."""
        if not await self._database.read(claims.has_work, self._database, request):
            return []
        return await self._database.write(claims.claim, self._database, request)

    async def grant_slots(self, shard: ShardKey, worker_id: str, grant_max: int) -> int:
        """Slots for a worker that holds a range of a run but none of its slots; 0 where none are left."""
        return await self._database.write(claims.grant_slots, shard, worker_id, grant_max)

    async def load_run(self, run_id: str) -> RunPlanRecord | None:
        """What a worker needs to know of a run; None when it has been deleted."""

        def read(connection: Connection) -> RunPlanRecord | None:
            run = runs.get_run_of_any_project(connection, run_id)
            if run is None:
                return None
            return RunPlanRecord(run, experiments.get_spec(connection, run.project_id, run.spec_hash))

        return await self._database.read(read)

    async def load_shard(self, run_id: str, first_cell: int, cells: int) -> ShardState:
        """What is known of the cells of a range."""
        return await self._database.read(shards.load_shard, run_id, first_cell, cells)

    async def stored_answers(self, run_id: str, cells: Sequence[int]) -> list[StoredAnswer]:
        """The answers of finished cells, for scoring."""
        return await self._database.read(shards.stored_answers, run_id, cells)

    async def take_bills(self, rest_ms: int, life_ms: int, limit: int) -> list[SweptBill]:
        """Open bills whose turn it is. Where there are none, nothing is written."""
        if not await self._database.read(bills.any_due, self._database):
            return []
        return await self._database.write(bills.take_bills, self._database, rest_ms * 1_000, life_ms * 1_000, limit)

    async def commit(self, worker_id: str, batches: Sequence[Sequence[Write]]) -> list[list[bool]]:
        """Write everything in one transaction; False answers say what the ledger did not accept."""
        return await self._database.write(commit.commit, self._statements, worker_id, batches)


class _NewRequestError(Exception):
    """Nothing is remembered under this request id; rolls the claim of the id back."""
