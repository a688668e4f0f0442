"""ResultService: results, one by one, in pages, summed up, and as files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.orchestrator.v1 import run_pb2 as pb
from llmlab.api.orchestrator.v1.run_pb2_grpc import ResultServiceServicer
from services.orchestrator.brands import BrandSummary, Names, Places, places_among, same_places
from services.orchestrator.exports import CsvWriter, ExportWriter, JsonLinesWriter, JsonWriter
from services.orchestrator.ports import Metrics
from services.orchestrator.records import RunRecord
from services.orchestrator.rpc.brand_messages import answer_brands, brands_message
from services.orchestrator.rpc.result_messages import (
    export_row,
    point_message,
    result_message,
    scores_of,
)
from services.orchestrator.rpc.runs import CELL_STATUSES, run_message
from services.orchestrator.spec_view import SpecView, SpecViews
from services.orchestrator.states import CellStatus
from services.orchestrator.store import ResultQuery, SqlLedger, StoredResult
from services.orchestrator.summary import Summary
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import InvalidField, NotFound
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 100
_PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
_FULL_PAGE_RESULTS: Final = 200
"""Results with bodies that are read at a time: a page ends at its size in bytes, and bodies are large."""
_EXPORT_PAGE: Final = 200
_SUMMARY_PAGE: Final = 1_000
_CHUNK_BYTES: Final = 256 * 1024
_STATUS_OF: Final = {number: status for status, number in CELL_STATUSES.items()}


class ResultServicer(ResultServiceServicer):
    """Serves llmlab.api.orchestrator.v1.ResultService."""

    def __init__(self, ledger: SqlLedger, metrics: Metrics, views: SpecViews, *, guard_formulas: bool) -> None:
        """`guard_formulas`: CSV cells that a spreadsheet would run as a formula get a quote in front."""
        self._ledger = ledger
        self._metrics = metrics
        self._views = views
        self._guard_formulas = guard_formulas

    async def GetResult(self, request: pb.GetResultRequest, context: Context) -> pb.GetResultResponse:
        """Gives one result with its bodies."""
        run = await self._ledger.get_run(current_principal().project_id, request.run_id)
        stored = await self._ledger.get_result(run.run_id, request.cell_index)
        if stored is None:
            raise NotFound("result", f"{request.run_id}/{request.cell_index}")
        view = await self._view(run)
        return pb.GetResultResponse(result=result_message(stored, view, full=True))

    async def ListResults(self, request: pb.ListResultsRequest, context: Context) -> pb.ListResultsResponse:
        """Lists results of a run or of an experiment."""
        chosen = _Filter(request.filter)
        project_id = current_principal().project_id
        fingerprint = filter_fingerprint("ListResults", project_id, request.full, *chosen.parts)
        position = decode_page_token(fingerprint, request.page_token)
        runs = await self._runs(chosen)
        after_run, after_cell = (str(position[0]), int(position[1])) if position else ("", -1)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        response = pb.ListResultsResponse()
        total_bytes = 0
        for run in runs:
            # Newest first: runs before the token's have been listed.
            if after_run and run.run_id > after_run:
                continue
            cell = after_cell if run.run_id == after_run else -1
            async for stored, view in self._stored(run, chosen, full=request.full, after_cell=cell):
                message = result_message(stored, view, full=request.full)
                total_bytes += message.ByteSize()
                if len(response.results) == size or (response.results and total_bytes > _PAGE_BYTES_MAX):
                    last = response.results[-1]
                    response.next_page_token = encode_page_token(fingerprint, [last.run_id, last.cell_index])
                    return response
                response.results.append(message)
        return response

    async def SummarizeRun(self, request: pb.SummarizeRunRequest, context: Context) -> pb.SummarizeRunResponse:
        """Sums a run up."""
        run = await self._ledger.get_run(current_principal().project_id, request.run_id)
        view = await self._view(run)
        summary = Summary(view.product)
        query = ResultQuery(run.run_id, limit=_SUMMARY_PAGE, sequence_max=run.last_sequence)
        while page := await self._ledger.page_results(query):
            for stored in page:
                summary.add(stored.record, scores_of(stored.bodies.scores))
            query = query.after(page[-1].record.cell)
        token = bearer_token()
        estimates = await self._metrics.summarize(token, summary.series())
        questions, reason = summary.questions()
        compared = {name: await self._metrics.compare(token, question) for name, question in questions.items()}
        return pb.SummarizeRunResponse(
            run=run_message(run),
            points=[point_message(figures, view) for figures in summary.figures(estimates, compared)],
            not_compared_reason=reason,
            has_brands=bool(view.spec.brands),
        )

    async def SummarizeRunBrands(
        self, request: pb.SummarizeRunBrandsRequest, context: Context
    ) -> pb.SummarizeRunBrandsResponse:
        """Sums the brands of a run up."""
        project_id = current_principal().project_id
        run = await self._ledger.get_run(project_id, request.run_id)
        view = await self._view(run)
        if not view.spec.brands:
            raise InvalidField("run_id", f"run {run.run_id} looks for no brands; give its experiment some")
        names = _brand_names(view)
        summary = await self._brands_of(run, view, same_places(names))
        baseline = None
        if request.baseline_run_id:
            earlier = await self._ledger.get_run(project_id, request.baseline_run_id)
            other = await self._view(earlier)
            baseline = (await self._brands_of(earlier, other, places_among(_brand_names(other), names))).columns
        found = await self._metrics.summarize_brands(bearer_token(), names, summary.columns, baseline)
        return brands_message(run_message(run), found, summary.domains(), names)

    async def _brands_of(self, run: RunRecord, view: SpecView, places: Places) -> BrandSummary:
        summary = BrandSummary(view.product, places)
        query = ResultQuery(run.run_id, limit=_SUMMARY_PAGE, sequence_max=run.last_sequence, brands=True)
        while page := await self._ledger.page_results(query):
            for stored in page:
                summary.add(stored.record, answer_brands(stored.bodies.brands))
            query = query.after(page[-1].record.cell)
        return summary

    async def ExportResults(
        self, request: pb.ExportResultsRequest, context: Context
    ) -> AsyncIterator[pb.ExportResultsResponse]:
        """Streams results as a file."""
        chosen = _Filter(request.filter)
        runs = await self._runs(chosen)
        writer = await self._writer(request.format, runs)
        written = 0
        pending = writer.begin().encode()
        for run in runs:
            async for stored, view in self._stored(run, chosen, full=True, sequence_max=run.last_sequence):
                pending += writer.rows([export_row(stored, view)]).encode()
                written += 1
                while len(pending) >= _CHUNK_BYTES:
                    yield pb.ExportResultsResponse(data=pending[:_CHUNK_BYTES], results=written)
                    pending = pending[_CHUNK_BYTES:]
        pending += writer.end().encode()
        for start in range(0, max(len(pending), 1), _CHUNK_BYTES):
            yield pb.ExportResultsResponse(data=pending[start : start + _CHUNK_BYTES], results=written)

    async def _runs(self, chosen: _Filter) -> list[RunRecord]:
        """The runs that a filter names, newest first. Raises NotFound."""
        project_id = current_principal().project_id
        if chosen.run_id:
            return [await self._ledger.get_run(project_id, chosen.run_id)]
        await self._ledger.get_experiment(project_id, chosen.experiment_id)
        return await self._ledger.runs_of_experiment(project_id, chosen.experiment_id)

    async def _stored(
        self, run: RunRecord, chosen: _Filter, *, full: bool, after_cell: int = -1, sequence_max: int | None = None
    ) -> AsyncIterator[tuple[StoredResult, SpecView]]:
        """A run's results, read page by page."""
        view = await self._view(run)
        models = view.model_indices(chosen.models) if chosen.models else ()
        if chosen.models and not models:
            return
        query = ResultQuery(
            run.run_id,
            after_cell=after_cell,
            limit=_FULL_PAGE_RESULTS if full else _SUMMARY_PAGE,
            statuses=chosen.statuses,
            models=models,
            sequence_max=sequence_max,
            bodies=True,
            brands=bool(view.spec.brands),
        )
        while page := await self._ledger.page_results(query):
            for stored in page:
                yield stored, view
            query = query.after(page[-1].record.cell)

    async def _view(self, run: RunRecord) -> SpecView:
        return await self._views.get(run.project_id, run.spec_hash)

    async def _writer(self, file_format: pb.ExportFormat.ValueType, runs: Sequence[RunRecord]) -> ExportWriter:
        if file_format == pb.EXPORT_FORMAT_JSON:
            return JsonWriter()
        if file_format == pb.EXPORT_FORMAT_JSON_LINES:
            return JsonLinesWriter()
        parameters: dict[str, None] = {}
        scores: dict[str, None] = {}
        for run in runs:
            view = await self._view(run)
            for index in range(len(view.spec.models)):
                parameters.update(dict.fromkeys(view.parameters(index, 0)))
            # All answers of a run have the same scores: one that is scored tells their names.
            query = ResultQuery(run.run_id, limit=1, scored_only=True)
            for stored in await self._ledger.page_results(query):
                scores.update(dict.fromkeys(score.name for score in scores_of(stored.bodies.scores)))
        return CsvWriter(list(parameters), list(scores), guard_formulas=self._guard_formulas)


def _brand_names(view: SpecView) -> Names:
    spec = view.spec
    return Names(
        [brand.name for brand in spec.brands],
        [prompt.name for prompt in spec.prompts],
        [model.model for model in spec.models],
    )


class _Filter:
    """A ResultFilter, checked."""

    def __init__(self, message: pb.ResultFilter) -> None:
        if bool(message.run_id) == bool(message.experiment_id):
            raise InvalidField("filter", "give exactly one of filter.run_id and filter.experiment_id")
        self.run_id = message.run_id
        self.experiment_id = message.experiment_id
        self.statuses: list[CellStatus] = [_STATUS_OF[number] for number in sorted(set(message.statuses))]
        self.models = frozenset(message.models)
        self.parts = (self.run_id, self.experiment_id, self.statuses, sorted(self.models))
