"""Calls to the orchestrator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from google.protobuf import field_mask_pb2

from llmlab.api.common.v1 import error_pb2
from llmlab.api.orchestrator.v1 import comparison_pb2, experiment_pb2, run_pb2, score_set_pb2
from llmlab.api.orchestrator.v1.experiment_pb2_grpc import ExperimentServiceStub
from llmlab.api.orchestrator.v1.run_pb2_grpc import ResultServiceStub, RunServiceStub
from llmlab.client.connection import Connection
from llmlab.client.errors import LlmlabError, NotFoundError

if TYPE_CHECKING:
    from llmlab.api.orchestrator.v1.experiment_pb2_grpc import ExperimentServiceAsyncStub
    from llmlab.api.orchestrator.v1.run_pb2_grpc import ResultServiceAsyncStub, RunServiceAsyncStub


class OrchestratorCalls(Connection):
    """Experiments, runs and results."""

    @property
    def _experiments(self) -> ExperimentServiceAsyncStub:
        return ExperimentServiceStub(self._channel("orchestrator"))

    @property
    def _runs(self) -> RunServiceAsyncStub:
        return RunServiceStub(self._channel("orchestrator"))

    @property
    def _results(self) -> ResultServiceAsyncStub:
        return ResultServiceStub(self._channel("orchestrator"))

    async def create_experiment(
        self, name: str, spec: experiment_pb2.ExperimentSpec, *, description: str = "", request_id: str = ""
    ) -> experiment_pb2.Experiment:
        """Creates an experiment; a repeat with the same `request_id` gives the first one."""
        request = experiment_pb2.CreateExperimentRequest(
            request_id=request_id, name=name, description=description, spec=spec
        )
        return (await self._unary("orchestrator", self._experiments.CreateExperiment, request)).experiment

    async def get_experiment(self, experiment_id: str) -> experiment_pb2.Experiment:
        """Returns one experiment with its spec."""
        request = experiment_pb2.GetExperimentRequest(experiment_id=experiment_id)
        return (await self._unary("orchestrator", self._experiments.GetExperiment, request)).experiment

    async def list_experiments(self) -> AsyncIterator[experiment_pb2.Experiment]:
        """Yields the project's experiments, newest first, without specs."""
        request = experiment_pb2.ListExperimentsRequest()
        async for page in self._pages("orchestrator", self._experiments.ListExperiments, request):
            for experiment in page.experiments:
                yield experiment

    async def update_experiment(
        self, experiment: experiment_pb2.Experiment, fields: Iterable[str], *, request_id: str = ""
    ) -> experiment_pb2.Experiment:
        """Changes the named fields ("name", "description", "spec") to those of `experiment`."""
        request = experiment_pb2.UpdateExperimentRequest(
            request_id=request_id,
            experiment_id=experiment.experiment_id,
            experiment=experiment,
            update_mask=field_mask_pb2.FieldMask(paths=list(fields)),
        )
        return (await self._unary("orchestrator", self._experiments.UpdateExperiment, request)).experiment

    async def delete_experiment(self, experiment_id: str, *, request_id: str = "") -> None:
        """Deletes an experiment with its ended runs and their results."""
        request = experiment_pb2.DeleteExperimentRequest(
            request_id=request_id or uuid4().hex, experiment_id=experiment_id
        )
        await self._unary("orchestrator", self._experiments.DeleteExperiment, request)

    async def plan_experiment(
        self,
        *,
        experiment_id: str = "",
        spec: experiment_pb2.ExperimentSpec | None = None,
        limits: experiment_pb2.RunLimits | None = None,
    ) -> experiment_pb2.PlanExperimentResponse:
        """Says what a run of an experiment, or of a spec that is not stored, would come to; nothing is spent."""
        request = experiment_pb2.PlanExperimentRequest(spec=spec, limits=limits)
        if spec is None:
            request.experiment_id = experiment_id
        return await self._unary("orchestrator", self._experiments.PlanExperiment, request)

    async def start_run(
        self,
        experiment_id: str,
        *,
        limits: experiment_pb2.RunLimits | None = None,
        reuse_identical: bool = False,
        request_id: str = "",
    ) -> run_pb2.Run:
        """Starts a run; it goes on whether or not anybody watches.

        Args:
            experiment_id: What to run.
            limits: Instead of the experiment's.
            reuse_identical: Give a run of the same content and limits that goes on or is completed, where there is one.
            request_id: Makes a repeat answer as the first request did.
        """
        request = run_pb2.StartRunRequest(
            request_id=request_id, experiment_id=experiment_id, limits=limits, reuse_identical=reuse_identical
        )
        return (await self._unary("orchestrator", self._runs.StartRun, request)).run

    async def get_run(self, run_id: str) -> run_pb2.Run:
        """Returns one run with its statistics."""
        request = run_pb2.GetRunRequest(run_id=run_id)
        return (await self._unary("orchestrator", self._runs.GetRun, request)).run

    async def list_runs(
        self, *, experiment_id: str = "", statuses: Iterable[run_pb2.RunStatus.ValueType] = ()
    ) -> AsyncIterator[run_pb2.Run]:
        """Yields runs, newest first."""
        request = run_pb2.ListRunsRequest(experiment_id=experiment_id, statuses=statuses)
        async for page in self._pages("orchestrator", self._runs.ListRuns, request):
            for run in page.runs:
                yield run

    async def cancel_run(self, run_id: str, *, request_id: str = "") -> run_pb2.Run:
        """Cancels a run; its results are kept."""
        request = run_pb2.CancelRunRequest(run_id=run_id, request_id=request_id)
        return (await self._unary("orchestrator", self._runs.CancelRun, request)).run

    async def pause_run(self, run_id: str, *, request_id: str = "") -> run_pb2.Run:
        """Tells a run to wait; its calls under way end as they do."""
        request = run_pb2.PauseRunRequest(run_id=run_id, request_id=request_id)
        return (await self._unary("orchestrator", self._runs.PauseRun, request)).run

    async def resume_run(self, run_id: str, *, request_id: str = "") -> run_pb2.Run:
        """Lets a paused run go on, on behalf of the caller."""
        request = run_pb2.ResumeRunRequest(run_id=run_id, request_id=request_id)
        return (await self._unary("orchestrator", self._runs.ResumeRun, request)).run

    async def retry_run(
        self, run_id: str, *, include_unknown: bool = False, request_id: str = ""
    ) -> run_pb2.RetryRunResponse:
        """Dispatches the cells of an ended run again that have no answer.

        Args:
            run_id: The run.
            include_unknown: Whether cells with an unknown outcome are among them; they can be paid for twice.
            request_id: A repeat with the same one answers as the first did; a new one if absent.
        """
        request = run_pb2.RetryRunRequest(
            request_id=request_id or uuid4().hex, run_id=run_id, include_unknown=include_unknown
        )
        return await self._unary("orchestrator", self._runs.RetryRun, request)

    async def delete_run(self, run_id: str, *, request_id: str = "") -> None:
        """Deletes an ended run with its results."""
        request = run_pb2.DeleteRunRequest(request_id=request_id or uuid4().hex, run_id=run_id)
        await self._unary("orchestrator", self._runs.DeleteRun, request)

    def watch_run(
        self, run_id: str, *, after_sequence: int = 0, on_pace: Callable[[run_pb2.RunPace], None] | None = None
    ) -> AsyncGenerator[run_pb2.RunEvent, None]:
        """Yields a run's events in order, each once, until the run has ended.

        A stream that is cut (a replica that stops, a network that breaks) is resumed behind the last event.

        Args:
            run_id: The run.
            after_sequence: Where to begin.
            on_pace: Hears how fast the run goes, before the events of that moment.

        Raises:
            LlmlabError: The run does not exist, or nobody answered 30 times in a row.
        """

        def request_after(sequence: int) -> run_pb2.WatchRunRequest:
            return run_pb2.WatchRunRequest(run_id=run_id, after_sequence=sequence)

        def events_of(message: run_pb2.WatchRunResponse) -> Iterable[run_pb2.RunEvent]:
            if on_pace is not None and message.HasField("pace"):
                on_pace(message.pace)
            return message.events

        # The orchestrator ends the stream in peace only where the run has ended.
        return self._watched("orchestrator", self._runs.WatchRun, request_after, events_of, after_sequence)

    async def watch_runs(self, *, experiment_id: str = "") -> AsyncGenerator[run_pb2.Run, None]:
        """Yields the project's runs that go on, then each run that begins, moves or ends, without end.

        A stream that is cut is taken up; runs that ended meanwhile are told of, too.

        Raises:
            LlmlabError: It is refused, or nobody answered 30 times in a row.
        """
        request = run_pb2.WatchRunsRequest(experiment_id=experiment_id)
        going_on: set[str] = set()
        failures = 0
        while True:
            lost, going_on = going_on, set()
            try:
                async with aclosing(self._stream("orchestrator", self._runs.WatchRuns, request)) as messages:
                    async for message in messages:
                        failures = 0
                        for run in [*message.runs, *await self._ended_since(lost, message.runs)]:
                            (going_on.discard if run.HasField("end_time") else going_on.add)(run.run_id)
                            yield run
                        lost = set()
            except LlmlabError as error:
                failures += 1
                going_on |= lost
                await self._pause_before_resuming(error, failures)

    async def _ended_since(self, lost: set[str], told: Iterable[run_pb2.Run]) -> list[run_pb2.Run]:
        """Those of the runs that went on before a cut, and of which the first message behind it does not tell."""
        ended = []
        for run_id in sorted(lost - {run.run_id for run in told}):
            with suppress(NotFoundError):
                ended.append(await self.get_run(run_id))
        return ended

    async def get_result(self, run_id: str, cell_index: int) -> run_pb2.Result:
        """Returns one result with request and response."""
        request = run_pb2.GetResultRequest(run_id=run_id, cell_index=cell_index)
        return (await self._unary("orchestrator", self._results.GetResult, request)).result

    async def list_results(
        self,
        *,
        run_id: str = "",
        experiment_id: str = "",
        statuses: Iterable[run_pb2.CellStatus.ValueType] = (),
        models: Iterable[str] = (),
        prompts: Iterable[str] = (),
        error_reasons: Iterable[error_pb2.ErrorReason.ValueType] = (),
        score_set: str = "",
        full: bool = False,
        order: run_pb2.ResultOrder.ValueType = run_pb2.RESULT_ORDER_CELL,
    ) -> AsyncIterator[run_pb2.Result]:
        """Yields the results of a run or of an experiment; `full` adds request and response."""
        results_filter = run_pb2.ResultFilter(
            run_id=run_id,
            experiment_id=experiment_id,
            statuses=statuses,
            models=models,
            prompts=prompts,
            error_reasons=error_reasons,
            score_set=score_set,
        )
        request = run_pb2.ListResultsRequest(filter=results_filter, full=full, order=order)
        async for page in self._pages("orchestrator", self._results.ListResults, request):
            for result in page.results:
                yield result

    async def list_conversations(
        self, *, run_id: str = "", experiment_id: str = "", prompts: Iterable[str] = ()
    ) -> AsyncIterator[run_pb2.Conversation]:
        """Yields prompts with their answers; one with many answers comes in parts, all but the first `continued`."""
        results_filter = run_pb2.ResultFilter(run_id=run_id, experiment_id=experiment_id, prompts=prompts)
        request = run_pb2.ListConversationsRequest(filter=results_filter)
        async for page in self._pages("orchestrator", self._results.ListConversations, request):
            for conversation in page.conversations:
                yield conversation

    async def compare_results(
        self, first: comparison_pb2.ComparedSide, second: comparison_pb2.ComparedSide
    ) -> comparison_pb2.CompareResultsResponse:
        """Compares two runs, or two models, at the prompts and rows that both have."""
        request = comparison_pb2.CompareResultsRequest(first=first, second=second)
        return await self._unary("orchestrator", self._results.CompareResults, request)

    async def rescore_run(
        self, run_id: str, score_set: str, scorers: Iterable[experiment_pb2.ScorerTarget]
    ) -> AsyncIterator[score_set_pb2.RescoreRunResponse]:
        """Scores an ended run's answers anew and yields how far it has come; a repeat goes on from there."""
        request = score_set_pb2.RescoreRunRequest(run_id=run_id, score_set=score_set, scorers=scorers)
        async for message in self._stream("orchestrator", self._results.RescoreRun, request):
            yield message

    async def list_score_sets(self, run_id: str) -> list[score_set_pb2.ScoreSet]:
        """Returns a run's score sets beside its own, by name."""
        request = score_set_pb2.ListScoreSetsRequest(run_id=run_id)
        return list((await self._unary("orchestrator", self._results.ListScoreSets, request)).score_sets)

    async def summarize_run(self, run_id: str, *, score_set: str = "") -> run_pb2.SummarizeRunResponse:
        """Sums a run up per model and parameter point, every figure with its interval."""
        request = run_pb2.SummarizeRunRequest(run_id=run_id, score_set=score_set)
        return await self._unary("orchestrator", self._results.SummarizeRun, request)

    async def summarize_run_brands(
        self, run_id: str, *, baseline_run_id: str = ""
    ) -> run_pb2.SummarizeRunBrandsResponse:
        """Sums up how visible the brands of a run are, with what has changed since an earlier run if one is given."""
        request = run_pb2.SummarizeRunBrandsRequest(run_id=run_id, baseline_run_id=baseline_run_id)
        return await self._unary("orchestrator", self._results.SummarizeRunBrands, request)

    async def export_results(
        self,
        *,
        run_id: str = "",
        experiment_id: str = "",
        file_format: run_pb2.ExportFormat.ValueType,
        score_set: str = "",
        resume_token: str = "",
    ) -> AsyncIterator[run_pb2.ExportResultsResponse]:
        """Yields the pieces of an export file; a stream that is cut goes on behind the last piece yielded.

        Each piece ends with a whole result, so that `resume_token` of the last one goes on behind it later, too.

        Raises:
            LlmlabError: It is refused (WRONG_STATE where results have changed meanwhile), or nobody answered 30 times.
        """
        results_filter = run_pb2.ResultFilter(run_id=run_id, experiment_id=experiment_id, score_set=score_set)

        def request() -> run_pb2.ExportResultsRequest:
            return run_pb2.ExportResultsRequest(filter=results_filter, format=file_format, resume_token=resume_token)

        failures = results = 0
        while True:
            pending = b""
            try:
                async with aclosing(self._stream("orchestrator", self._results.ExportResults, request())) as pieces:
                    async for piece in pieces:
                        pending += piece.data
                        results = piece.results
                        if piece.resume_token:
                            failures, resume_token = 0, piece.resume_token
                            piece.data, pending = pending, b""
                            yield piece
                yield run_pb2.ExportResultsResponse(data=pending, results=results)
                return
            except LlmlabError as error:
                failures += 1
                await self._pause_before_resuming(error, failures)
