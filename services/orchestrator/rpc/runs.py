"""RunService: runs, and watching them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.orchestrator.v1 import run_pb2 as pb
from llmlab.api.orchestrator.v1.run_pb2_grpc import RunServiceServicer
from services.orchestrator.admission import Admission
from services.orchestrator.limits import RunLimits
from services.orchestrator.pace import Pace
from services.orchestrator.ports import Budgets, Identity
from services.orchestrator.records import EventKind, RunEvent, RunRecord, Statistics
from services.orchestrator.rpc.codec import money_message, payload_of, reason_number, timestamp_of, usage_message
from services.orchestrator.rpc.delegations import Delegations
from services.orchestrator.rpc.run_states import watch_states
from services.orchestrator.rpc.specs import limits_message, limits_of
from services.orchestrator.run_changes import RunChanges
from services.orchestrator.spec_codec import decode_spec
from services.orchestrator.spec_view import SpecView, SpecViews
from services.orchestrator.states import CellStatus, RunStatus
from services.orchestrator.store import SqlLedger
from services.orchestrator.topics import WORK_TOPIC, run_topic
from services.orchestrator.validation import check_limits
from services.runtime.clock import Clock
from services.runtime.context import bearer_token, current_principal, endless
from services.runtime.errors import DomainError
from services.runtime.feeds import Watching, WatchPolicy
from services.runtime.hints import Hints
from services.runtime.ids import new_id
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint
from services.runtime.requests import RequestKey
from services.runtime.tracing import current_traceparent

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)

_PAGE_SIZE_DEFAULT: Final = 50

RUN_STATUSES: Final = {status: pb.RunStatus.Value(f"RUN_STATUS_{status.name}") for status in RunStatus}
CELL_STATUSES: Final = {status: pb.CellStatus.Value(f"CELL_STATUS_{status.name}") for status in CellStatus}
_RUN_STATUS_OF: Final = {number: status for status, number in RUN_STATUSES.items()}


class RunServicer(RunServiceServicer):
    """Serves llmlab.api.orchestrator.v1.RunService."""

    def __init__(
        self,
        ledger: SqlLedger,
        admission: Admission,
        identity: Identity,
        budgets: Budgets,
        views: SpecViews,
        watching: Watching[RunEvent, pb.WatchRunResponse],
        watch_policy: WatchPolicy,
        hints: Hints,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._admission = admission
        self._budgets = budgets
        self._delegations = Delegations(ledger, identity)
        self._views = views
        self._watching = watching
        self._watch_policy = watch_policy
        self._hints = hints
        self._clock = clock

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        """Starts a run."""
        principal = current_principal()
        key, payload = RequestKey(principal.project_id, "StartRun", request.request_id), payload_of(request)
        first = await self._ledger.recall(key, payload)
        if first is None:
            wanted = limits_of(request.limits)
            check_limits(wanted, "limits")
            record = await self._new_run(request.experiment_id, wanted)
            try:
                if record.limits.max_cost_nano_usd:
                    # Before the run is there: nothing leaves without its limit.
                    await self._budgets.limit_run(record.project_id, record.run_id, record.limits.max_cost_nano_usd)
                first = await self._ledger.start_run(record, key, payload, _encoded, reuse=request.reuse_identical)
                if record.limits.max_cost_nano_usd and pb.Run.FromString(first).run_id != record.run_id:
                    await self._lift(record.project_id, record.run_id)
            finally:
                await self._delegations.revoke_unless_used(record.project_id, record.run_id, record.delegation_id)
            self._hints.publish(WORK_TOPIC)
        return pb.StartRunResponse(run=pb.Run.FromString(first))

    async def _new_run(self, experiment_id: str, wanted: RunLimits) -> RunRecord:
        """A run that may start: its experiment is good, and it may act for the caller."""
        principal = current_principal()
        experiment = await self._ledger.get_experiment(principal.project_id, experiment_id)
        encoded = await self._ledger.get_spec(principal.project_id, experiment.spec_hash)
        spec = await asyncio.to_thread(decode_spec, encoded)
        await self._admission.admit_run(spec, bearer_token())
        run_id = new_id("run")
        return RunRecord(
            run_id=run_id,
            project_id=principal.project_id,
            experiment_id=experiment_id,
            experiment_name=experiment.name,
            status=RunStatus.PENDING,
            spec_hash=experiment.spec_hash,
            limits=spec.limits.overridden_by(wanted).in_force(),
            user_id=principal.user_id,
            key_id=principal.key_id,
            delegation_id=await self._delegations.create(run_id),
            created_us=self._clock.now_us(),
            last_sequence=1,
            statistics=Statistics(cells_total=experiment.cells),
            traceparent=current_traceparent(),
        )

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Gives one run."""
        record = await self._ledger.get_run(current_principal().project_id, request.run_id)
        return pb.GetRunResponse(run=run_message(record))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """Lists the project's runs."""
        project_id = current_principal().project_id
        statuses = sorted(set(request.statuses))
        fingerprint = filter_fingerprint("ListRuns", project_id, request.experiment_id, statuses)
        before = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._ledger.list_runs(
            project_id,
            request.experiment_id,
            [_RUN_STATUS_OF[number] for number in statuses],
            str(before[0]) if before else "",
            size + 1,
        )
        page = found[:size]
        return pb.ListRunsResponse(
            runs=[run_message(record) for record in page],
            next_page_token=encode_page_token(fingerprint, [page[-1].run_id]) if len(found) > size else "",
        )

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        """Cancels a run."""
        principal = current_principal()
        key = RequestKey(principal.project_id, "CancelRun", request.request_id)
        run = pb.Run.FromString(
            await self._ledger.cancel_run(principal.project_id, request.run_id, key, payload_of(request), _encoded)
        )
        self._tell_workers(request.run_id)
        if run.HasField("end_time"):
            # No worker sees the end of a run that nobody had claimed.
            await self._delegations.revoke_of_ended(principal.project_id, request.run_id)
        return pb.CancelRunResponse(run=run)

    async def PauseRun(self, request: pb.PauseRunRequest, context: Context) -> pb.PauseRunResponse:
        """Pauses a run."""
        project_id = current_principal().project_id
        key = RequestKey(project_id, "PauseRun", request.request_id)
        first = await self._ledger.pause_run(project_id, request.run_id, key, payload_of(request), _encoded)
        self._tell_workers(request.run_id)
        return pb.PauseRunResponse(run=pb.Run.FromString(first))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Context) -> pb.ResumeRunResponse:
        """Lets a paused run go on."""
        project_id = current_principal().project_id
        key, payload = RequestKey(project_id, "ResumeRun", request.request_id), payload_of(request)
        first = await self._ledger.recall(key, payload)
        if first is None:
            async with self._delegations.acting_for_caller(request.run_id) as delegation_id:
                first = await self._ledger.resume_run(project_id, request.run_id, delegation_id, key, payload, _encoded)
            self._tell_workers(request.run_id)
        return pb.ResumeRunResponse(run=pb.Run.FromString(first))

    async def RetryRun(self, request: pb.RetryRunRequest, context: Context) -> pb.RetryRunResponse:
        """Dispatches the cells of an ended run anew that have no answer."""
        project_id = current_principal().project_id
        key, payload = RequestKey(project_id, "RetryRun", request.request_id), payload_of(request)

        def answer(record: RunRecord, cells: int) -> bytes:
            return pb.RetryRunResponse(run=run_message(record), cells=cells).SerializeToString()

        first = await self._ledger.recall(key, payload)
        if first is None:
            async with self._delegations.acting_for_caller(request.run_id) as delegation_id:
                first = await self._ledger.retry_run(
                    project_id,
                    request.run_id,
                    delegation_id,
                    key,
                    payload,
                    answer,
                    unknown=request.include_unknown,
                )
            self._tell_workers(request.run_id)
        return pb.RetryRunResponse.FromString(first)

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:
        """Deletes an ended run."""
        project_id = current_principal().project_id
        key = RequestKey(project_id, "DeleteRun", request.request_id)
        await self._ledger.delete_run(project_id, request.run_id, key, payload_of(request))
        await self._lift(project_id, request.run_id)
        return pb.DeleteRunResponse()

    async def _lift(self, project_id: str, run_id: str) -> None:
        """End the budget of a run that is gone; one that stays limits nothing any more."""
        try:
            await self._budgets.lift_run(project_id, run_id)
        except DomainError as error:
            _log.warning("the budget of run %s stays: %s", run_id, error.message)

    def _tell_workers(self, run_id: str) -> None:
        self._hints.publish(WORK_TOPIC)
        self._hints.publish(run_topic(run_id))

    @endless
    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        """Streams a run's events."""
        record = await self._ledger.get_run(current_principal().project_id, request.run_id)
        view = await self._views.get(record.project_id, record.spec_hash)

        def encode(events: Sequence[RunEvent], latest: int) -> pb.WatchRunResponse:
            message = pb.WatchRunResponse(events=[_event(event, view) for event in events], latest_sequence=latest)
            for event in events:
                if event.pace is not None:
                    _fill_pace(message.pace, event.pace, view)
            return message

        async with aclosing(self._watching.watch(request.run_id, request.after_sequence, encode)) as messages:
            async for message in messages:
                yield message

    @endless
    async def WatchRuns(self, request: pb.WatchRunsRequest, context: Context) -> AsyncIterator[pb.WatchRunsResponse]:
        """Streams the states of the project's runs."""
        changes = RunChanges(self._ledger, current_principal().project_id, request.experiment_id)
        async with aclosing(watch_states(changes, self._watch_policy, run_message)) as messages:
            async for message in messages:
                yield message


def run_message(record: RunRecord) -> pb.Run:
    """A run on the wire."""
    return pb.Run(
        run_id=record.run_id,
        experiment_id=record.experiment_id,
        experiment_name=record.experiment_name,
        status=RUN_STATUSES[record.status],
        statistics=_statistics(record.statistics),
        limits=limits_message(record.limits),
        create_time=timestamp_of(record.created_us),
        start_time=timestamp_of(record.started_us),
        end_time=timestamp_of(record.ended_us),
        last_sequence=record.last_sequence,
        failure=record.failure,
    )


def _encoded(record: RunRecord) -> bytes:
    return run_message(record).SerializeToString()


def _statistics(statistics: Statistics) -> pb.RunStatistics:
    return pb.RunStatistics(
        cells_total=statistics.cells_total,
        cells_done=statistics.done,
        cells_failed=statistics.failed,
        cells_unknown=statistics.unknown,
        cells_scored=statistics.scored,
        attempts_failed=statistics.attempts_failed,
        usage=usage_message(statistics.usage),
        cost=money_message(statistics.cost),
        latency_sum_us=statistics.latency_sum_us,
    )


def _event(event: RunEvent, view: SpecView) -> pb.RunEvent:
    message = pb.RunEvent(sequence=event.sequence, time=timestamp_of(event.time_us))
    if event.result is not None:
        result = event.result
        message.result.cell_index = result.cell
        message.result.status = CELL_STATUSES[result.status]
        message.result.model = view.model_name(result.cell)
        message.result.cost.CopyFrom(money_message(result.cost))
        message.result.latency_us = result.latency_us
        message.result.error_reason = reason_number(result.error_reason)
        return message
    statistics = _statistics(event.statistics or Statistics())
    match event.kind:
        case EventKind.STARTED:
            message.started.cells_total = statistics.cells_total
        case EventKind.PROGRESS:
            message.progress.statistics.CopyFrom(statistics)
        case EventKind.COMPLETED:
            message.completed.statistics.CopyFrom(statistics)
        case EventKind.FAILED:
            message.failed.statistics.CopyFrom(statistics)
            message.failed.failure = event.failure
        case EventKind.CANCELLED:
            message.cancelled.statistics.CopyFrom(statistics)
        case EventKind.EXHAUSTED:
            message.exhausted.statistics.CopyFrom(statistics)
            message.exhausted.failure = event.failure
        case EventKind.PAUSED:
            message.paused.statistics.CopyFrom(statistics)
        case EventKind.RESUMED:
            message.resumed.statistics.CopyFrom(statistics)
        case EventKind.RETRIED:
            message.retried.statistics.CopyFrom(statistics)
    return message


def _fill_pace(message: pb.RunPace, pace: Pace, view: SpecView) -> None:
    message.results_per_s = pace.results_per_s
    if pace.eta_us is not None:
        message.eta_us = pace.eta_us
    for quantile, latency_us in pace.latency_us:
        message.latencies.add(quantile=quantile, latency_us=latency_us)
    for model, calls_max in pace.calls:
        message.calls.add(model=view.spec.models[model].model, calls_max=calls_max)
