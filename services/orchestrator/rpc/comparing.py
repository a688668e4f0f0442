"""CompareResults: both sides read, the statistics asked, the answer put together."""

from __future__ import annotations

from llmlab.api.orchestrator.v1 import comparison_pb2 as pb
from services.orchestrator.comparison import Pair, Side, Units
from services.orchestrator.ports import Metrics
from services.orchestrator.records import RunRecord
from services.orchestrator.rpc.codec import money_message, usage_message
from services.orchestrator.rpc.result_messages import DIRECTION_NUMBERS, estimate_message, scores_of
from services.orchestrator.rpc.result_reading import PAGE, ResultReader
from services.orchestrator.spec_view import SpecView
from services.orchestrator.store import ResultQuery, SqlLedger
from services.orchestrator.store.commit import DEFAULT_SCORE_SET
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import InvalidField


class Comparer:
    """Compares two sides."""

    def __init__(self, ledger: SqlLedger, reader: ResultReader, metrics: Metrics) -> None:
        self._ledger = ledger
        self._reader = reader
        self._metrics = metrics

    async def compare(self, request: pb.CompareResultsRequest) -> pb.CompareResultsResponse:
        """Answers a request. Raises InvalidField, NotFound, ResourceExhausted."""
        if request.first == request.second:
            raise InvalidField("second", "both sides are the same; name another run, or another model")
        pair, units = Pair(), Units()
        first_run = await self._read(request.first, pair.first, units, "first")
        second_run = await self._read(request.second, pair.second, units, "second")
        response = pb.CompareResultsResponse(units_shared=pair.shared)
        await self._summarize(response, pair)
        for summary, run, side, message, other in (
            (response.first, first_run, pair.first, request.first, pair.second),
            (response.second, second_run, pair.second, request.second, pair.first),
        ):
            summary.side.CopyFrom(message)
            summary.experiment_name = run.experiment_name
            summary.cells, summary.cells_done = side.cells, side.done
            summary.units_alone = len(side.units.keys() - other.units.keys())
            summary.usage.CopyFrom(usage_message(side.usage))
            summary.cost.CopyFrom(money_message(side.cost))
        response.differing_by = pair.differing_by()
        if response.differing_by:
            view = await self._reader.view(first_run)
            response.differing.extend(_differing(pair, response.differing_by, view))
        return response

    async def _read(self, message: pb.ComparedSide, side: Side, units: Units, field: str) -> RunRecord:
        run = await self._ledger.get_run(current_principal().project_id, message.run_id)
        view = await self._reader.view(run)
        models = view.model_indices(frozenset([message.model])) if message.model else []
        if message.model and not models:
            known = ", ".join(dict.fromkeys(model.model for model in view.spec.models))
            raise InvalidField(f"{field}.model", f"run {run.run_id} has no model {message.model!r}; it has {known}")
        score_set = message.score_set or DEFAULT_SCORE_SET
        await self._reader.check_score_set(run.run_id, score_set)
        query = ResultQuery(run.run_id, limit=PAGE, sequence_max=run.last_sequence, models=models, score_set=score_set)
        async for page in self._reader.pages(query):
            for stored in page:
                address = view.address(stored.record.cell)
                unit = units.number(view, address.prompt, address.row)
                side.add(stored.record, unit, address.row, scores_of(stored.bodies.scores))
        return run

    async def _summarize(self, response: pb.CompareResultsResponse, pair: Pair) -> None:
        token, names = bearer_token(), pair.names()
        series = [side.series(name) for name in names for side in (pair.first, pair.second)]
        *means, first, second = await self._metrics.summarize(
            token, [*series, pair.first.latencies(), pair.second.latencies()]
        )
        response.first.latency_us.extend(map(estimate_message, first))
        response.second.latency_us.extend(map(estimate_message, second))
        for number, name in enumerate(names):
            figure = response.figures.add(
                name=name,
                direction=DIRECTION_NUMBERS[pair.first.figures[name].kind.direction],
                first=estimate_message(means[2 * number][0]),
                second=estimate_message(means[2 * number + 1][0]),
            )
            for comparison in await self._metrics.compare(token, pair.question(name)):
                figure.comparison.MergeFromString(comparison.encoded)


def _differing(pair: Pair, name: str, view: SpecView) -> list[pb.DifferingUnit]:
    return [
        pb.DifferingUnit(
            prompt_name=view.spec.prompts[view.address(each.first_cell).prompt].name,
            row_index=each.row,
            first=each.first,
            second=each.second,
            first_cell_index=each.first_cell,
            second_cell_index=each.second_cell,
        )
        for each in pair.differing(name)
    ]
