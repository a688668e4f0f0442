"""What lists, conversations, exports and comparisons of results have in common: which results, read page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from llmlab.api.common.v1.error_pb2 import ErrorReason
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from services.orchestrator.records import RunRecord
from services.orchestrator.rpc.runs import CELL_STATUSES
from services.orchestrator.spec_view import SpecView, SpecViews
from services.orchestrator.states import CellStatus
from services.orchestrator.store import Bodies, ResultOrder, ResultQuery, SqlLedger, StoredResult
from services.orchestrator.store.commit import DEFAULT_SCORE_SET
from services.orchestrator.store.results import Position
from services.runtime.context import current_principal
from services.runtime.errors import InvalidField, NotFound

PAGE: Final = 1_000
FULL_PAGE: Final = 200
"""Results with bodies that are read at a time: a page ends at its size in bytes, and bodies are large."""
_STATUS_OF: Final = {number: status for status, number in CELL_STATUSES.items()}
ORDERS: Final = {pb.RESULT_ORDER_UNSPECIFIED: ResultOrder.CELL} | {
    pb.ResultOrder.Value(f"RESULT_ORDER_{order.name}"): order for order in ResultOrder
}


class Filter:
    """A ResultFilter, checked."""

    def __init__(self, message: pb.ResultFilter) -> None:
        """Raises InvalidField."""
        if bool(message.run_id) == bool(message.experiment_id):
            raise InvalidField("filter", "give exactly one of filter.run_id and filter.experiment_id")
        self.run_id = message.run_id
        self.experiment_id = message.experiment_id
        self.statuses: list[CellStatus] = [_STATUS_OF[number] for number in sorted(set(message.statuses))]
        self.models = frozenset(message.models)
        self.prompts = frozenset(message.prompts)
        self.error_reasons = frozenset(
            ErrorReason.Name(number).removeprefix("ERROR_REASON_") for number in message.error_reasons
        )
        self.score_set = message.score_set or DEFAULT_SCORE_SET
        self.parts = (
            self.run_id,
            self.experiment_id,
            self.statuses,
            sorted(self.models),
            sorted(self.prompts),
            sorted(self.error_reasons),
            self.score_set,
        )

    def narrowed(self, query: ResultQuery, view: SpecView) -> ResultQuery | None:
        """The query with this filter's conditions; None where nothing of the run can meet them."""
        models = view.model_indices(self.models) if self.models else []
        cells = view.cells_of_prompts(self.prompts) if self.prompts else []
        if bool(self.models) > bool(models) or bool(self.prompts) > bool(cells):
            return None
        return ResultQuery(
            query.run_id,
            order=query.order,
            after=query.after,
            limit=query.limit,
            statuses=self.statuses,
            models=models,
            cells=cells,
            error_reasons=self.error_reasons,
            sequence_max=query.sequence_max,
            bodies=query.bodies,
            brands=bool(view.spec.brands),
            score_set=self.score_set,
        )


class ResultReader:
    """Reads stored results with the views of their specs."""

    def __init__(self, ledger: SqlLedger, views: SpecViews) -> None:
        self._ledger = ledger
        self._views = views

    async def view(self, run: RunRecord) -> SpecView:
        """What a run's cells stand for."""
        return await self._views.get(run.project_id, run.spec_hash)

    async def runs(self, chosen: Filter) -> list[RunRecord]:
        """The runs that a filter names, newest first. Raises NotFound."""
        project_id = current_principal().project_id
        if chosen.run_id:
            run = await self._ledger.get_run(project_id, chosen.run_id)
            await self.check_score_set(run.run_id, chosen.score_set)
            return [run]
        await self._ledger.get_experiment(project_id, chosen.experiment_id)
        return await self._ledger.runs_of_experiment(project_id, chosen.experiment_id)

    async def check_score_set(self, run_id: str, score_set: str) -> None:
        """Raises NotFound where a run has no score set of that name."""
        if score_set != DEFAULT_SCORE_SET and await self._ledger.get_score_set(run_id, score_set) is None:
            raise NotFound("score set", f"{run_id}/{score_set}")

    async def listed(
        self, chosen: Filter, start: tuple[str, Position] | None, order: ResultOrder, size: int, *, full: bool
    ) -> AsyncIterator[tuple[StoredResult, SpecView]]:
        """Results of all runs behind `start`, a run and a position in it; no more are read at a time than wanted."""
        limit = min(size + 1, FULL_PAGE if full else PAGE)
        bodies = Bodies.ALL if full else Bodies.ERRORS
        for run in await self.runs(chosen):
            # Newest first: runs before that of the start have been listed.
            if start and run.run_id > start[0]:
                continue
            after = start[1] if start and run.run_id == start[0] else ()
            query = ResultQuery(run.run_id, order=order, after=after, limit=limit, bodies=bodies)
            async for each in self.stored(run, chosen, query):
                yield each

    async def stored(
        self, run: RunRecord, chosen: Filter, query: ResultQuery
    ) -> AsyncIterator[tuple[StoredResult, SpecView]]:
        """A run's results, one by one; the filter narrows the query."""
        async for page, view in self.stored_pages(run, chosen, query):
            for stored in page:
                yield stored, view

    async def stored_pages(
        self, run: RunRecord, chosen: Filter, query: ResultQuery
    ) -> AsyncIterator[tuple[list[StoredResult], SpecView]]:
        """A run's results in the pages of a query, which the filter narrows."""
        view = await self.view(run)
        narrowed = chosen.narrowed(query, view)
        if narrowed is not None:
            async for page in self.pages(narrowed):
                yield page, view

    async def pages(self, query: ResultQuery) -> AsyncIterator[list[StoredResult]]:
        """A run's results in the pages of a query, to the last."""
        while page := await self._ledger.page_results(query):
            yield page
            if len(page) < query.limit:
                return
            query = query.behind(page[-1])
