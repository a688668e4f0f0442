"""ResultService: results, one by one, in pages, summed up, and as files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.orchestrator.v1 import comparison_pb2 as cpb
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from llmlab.api.orchestrator.v1 import score_set_pb2 as spb
from llmlab.api.orchestrator.v1.run_pb2_grpc import ResultServiceServicer
from services.orchestrator.admission import Admission
from services.orchestrator.brands import BrandSummary, Names, Places, places_among, same_places
from services.orchestrator.ports import Metrics
from services.orchestrator.records import RunRecord
from services.orchestrator.rpc.brand_messages import answer_brands, brands_message
from services.orchestrator.rpc.comparing import Comparer
from services.orchestrator.rpc.exporting import Exporter
from services.orchestrator.rpc.rescoring import Rescorer, score_set_message
from services.orchestrator.rpc.result_messages import (
    attempt_message,
    point_message,
    result_message,
    scores_of,
)
from services.orchestrator.rpc.result_reading import ORDERS, PAGE, Filter, ResultReader
from services.orchestrator.rpc.runs import run_message
from services.orchestrator.spec_view import SpecView, SpecViews
from services.orchestrator.store import ResultOrder, ResultQuery, SqlLedger
from services.orchestrator.store.commit import DEFAULT_SCORE_SET
from services.orchestrator.store.results import Position
from services.orchestrator.summary import Summary
from services.runtime.clock import Clock
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import InvalidField, NotFound
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 100
_PAGE_BYTES_MAX: Final = 4 * 1024 * 1024


class ResultServicer(ResultServiceServicer):
    """Serves llmlab.api.orchestrator.v1.ResultService."""

    def __init__(
        self,
        ledger: SqlLedger,
        metrics: Metrics,
        admission: Admission,
        views: SpecViews,
        clock: Clock,
        *,
        guard_formulas: bool,
    ) -> None:
        """`guard_formulas`: CSV cells that a spreadsheet would run as a formula get a quote in front."""
        self._ledger = ledger
        self._metrics = metrics
        self._reader = ResultReader(ledger, views)
        self._exporter = Exporter(ledger, self._reader, guard_formulas=guard_formulas)
        self._rescorer = Rescorer(ledger, self._reader, metrics, admission, clock)
        self._comparer = Comparer(ledger, self._reader, metrics)

    async def GetResult(self, request: pb.GetResultRequest, context: Context) -> pb.GetResultResponse:
        """Gives one result with its bodies and earlier attempts."""
        run = await self._ledger.get_run(current_principal().project_id, request.run_id)
        stored = await self._ledger.get_result(run.run_id, request.cell_index)
        if stored is None:
            raise NotFound("result", f"{request.run_id}/{request.cell_index}")
        result = result_message(stored, await self._reader.view(run), full=True)
        earlier = await self._ledger.attempts_of(run.run_id, request.cell_index)
        result.earlier_attempts.extend(attempt_message(*each) for each in earlier)
        return pb.GetResultResponse(result=result)

    async def ListResults(self, request: pb.ListResultsRequest, context: Context) -> pb.ListResultsResponse:
        """Lists results of a run or of an experiment."""
        chosen, order = Filter(request.filter), ORDERS[request.order]
        fingerprint = self._fingerprint("ListResults", chosen, request.full, order.name)
        start = _start(decode_page_token(fingerprint, request.page_token))
        size = request.page_size or _PAGE_SIZE_DEFAULT
        response = pb.ListResultsResponse()
        async with aclosing(self._page(chosen, start, order, size, full=request.full)) as page:
            async for message, after in page:
                if message is None:
                    response.next_page_token = encode_page_token(fingerprint, after)
                else:
                    response.results.append(message)
        return response

    async def ListConversations(
        self, request: pb.ListConversationsRequest, context: Context
    ) -> pb.ListConversationsResponse:
        """Lists answers by prompt and row."""
        chosen, order = Filter(request.filter), ResultOrder.CELL
        fingerprint = self._fingerprint("ListConversations", chosen)
        position = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        response = pb.ListConversationsResponse()
        # The token also says which conversation the page before ended with.
        before = tuple(position[2:]) if position else ()
        last: tuple[str | int, ...] = (str(position[0]), *before) if position else ()
        async with aclosing(
            self._page(chosen, _start(position[:2] if position else None), order, size, full=True)
        ) as page:
            async for message, after in page:
                if message is None:
                    response.next_page_token = encode_page_token(fingerprint, [*after, *last[1:]])
                    break
                here = (message.run_id, message.prompt_name, message.row_index)
                if not response.conversations or here != last:
                    added = response.conversations.add(
                        run_id=message.run_id, prompt_name=message.prompt_name, row_index=message.row_index
                    )
                    added.request.extend(message.request)
                    added.continued = here == last
                last = here
                message.ClearField("request")
                response.conversations[-1].results.append(message)
        return response

    def _fingerprint(self, method: str, chosen: Filter, *more: object) -> bytes:
        return filter_fingerprint(method, current_principal().project_id, *more, *chosen.parts)

    async def _page(
        self, chosen: Filter, start: tuple[str, Position] | None, order: ResultOrder, size: int, *, full: bool
    ) -> AsyncGenerator[tuple[pb.Result | None, tuple[str | int, ...]], None]:
        """The results of one page, each with its place; behind them None where more follow."""
        count = total_bytes = 0
        place: tuple[str | int, ...] = ()
        async for stored, view in self._reader.listed(chosen, start, order, size, full=full):
            message = result_message(stored, view, full=full)
            total_bytes += message.ByteSize()
            if count == size or (count and total_bytes > _PAGE_BYTES_MAX):
                yield None, place
                return
            count += 1
            place = (stored.record.run_id, *map(_written, order.position(stored)))
            yield message, place

    async def RescoreRun(
        self, request: spb.RescoreRunRequest, context: Context
    ) -> AsyncIterator[spb.RescoreRunResponse]:
        """Scores the answers of a run anew."""
        async with aclosing(self._rescorer.rescore(request)) as messages:
            async for message in messages:
                yield message

    async def ListScoreSets(self, request: spb.ListScoreSetsRequest, context: Context) -> spb.ListScoreSetsResponse:
        """Lists the score sets of a run."""
        run = await self._ledger.get_run(current_principal().project_id, request.run_id)
        found = await self._ledger.list_score_sets(run.run_id)
        return spb.ListScoreSetsResponse(score_sets=map(score_set_message, found))

    async def CompareResults(self, request: cpb.CompareResultsRequest, context: Context) -> cpb.CompareResultsResponse:
        """Compares two runs, or two models."""
        return await self._comparer.compare(request)

    async def SummarizeRun(self, request: pb.SummarizeRunRequest, context: Context) -> pb.SummarizeRunResponse:
        """Sums a run up."""
        run = await self._ledger.get_run(current_principal().project_id, request.run_id)
        view = await self._reader.view(run)
        summary = Summary(view.product)
        score_set = request.score_set or DEFAULT_SCORE_SET
        await self._reader.check_score_set(run.run_id, score_set)
        query = ResultQuery(run.run_id, limit=PAGE, sequence_max=run.last_sequence, score_set=score_set)
        async for page in self._reader.pages(query):
            for stored in page:
                summary.add(stored.record, scores_of(stored.bodies.scores))
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
        view = await self._reader.view(run)
        if not view.spec.brands:
            raise InvalidField("run_id", f"run {run.run_id} looks for no brands; give its experiment some")
        names = _brand_names(view)
        summary = await self._brands_of(run, view, same_places(names))
        baseline = None
        if request.baseline_run_id:
            earlier = await self._ledger.get_run(project_id, request.baseline_run_id)
            other = await self._reader.view(earlier)
            baseline = (await self._brands_of(earlier, other, places_among(_brand_names(other), names))).columns
        found = await self._metrics.summarize_brands(bearer_token(), names, summary.columns, baseline)
        return brands_message(run_message(run), found, summary.domains(), names)

    async def _brands_of(self, run: RunRecord, view: SpecView, places: Places) -> BrandSummary:
        summary = BrandSummary(view.product, places)
        query = ResultQuery(run.run_id, limit=PAGE, sequence_max=run.last_sequence, brands=True)
        async for page in self._reader.pages(query):
            for stored in page:
                summary.add(stored.record, answer_brands(stored.bodies.brands))
        return summary

    async def ExportResults(
        self, request: pb.ExportResultsRequest, context: Context
    ) -> AsyncIterator[pb.ExportResultsResponse]:
        """Streams results as a file."""
        async with aclosing(self._exporter.export(request)) as pieces:
            async for piece in pieces:
                yield piece


def _brand_names(view: SpecView) -> Names:
    spec = view.spec
    return Names(
        [brand.name for brand in spec.brands],
        [prompt.name for prompt in spec.prompts],
        [model.model for model in spec.models],
    )


def _start(position: Sequence[str | int] | None) -> tuple[str, Position] | None:
    """Where a page goes on: the run, and the place in its order."""
    return (str(position[0]), tuple(map(_read, position[1:]))) if position else None


def _written(value: float) -> int | str:
    """A part of a place as a page token takes it: a score as the text that gives exactly it again."""
    return value if isinstance(value, int) else repr(value)


def _read(value: int | str) -> int | float:
    return float(value) if isinstance(value, str) else value
