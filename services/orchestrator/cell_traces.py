"""The spans of a run's cells in one worker: each from the cell's dispatch until nothing is left to do for it.

They lie below the RPC that started the run. A run can have a million cells, and a trace cannot: a bounded number of
them is followed, always the same ones, whichever worker has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.orchestrator.calls import CallId
from services.orchestrator.plan import RunPlan
from services.runtime.tracing import is_recorded

if TYPE_CHECKING:
    from services.runtime.spans import Attribute, Span, Tracer

# Spreads the numbers of cells evenly (Knuth, The Art of Computer Programming, volume 3, 6.4): every tenth cell of a
# grid would always be of the same model.
_SPREAD = 2_654_435_761
_RANGE = 2**32


class CellTraces:
    """Begins and ends the spans of the cells that are followed."""

    def __init__(self, tracer: Tracer, plan: RunPlan, cells_max: int) -> None:
        """About `cells_max` cells of the run are followed; all of them where it has no more."""
        self._tracer = tracer
        self._plan = plan
        self._below = _RANGE if plan.cells <= cells_max else _RANGE * cells_max // plan.cells
        self._spans: dict[int, Span] = {}
        self._failures: dict[int, str] = {}

    @classmethod
    def of_run(cls, tracer: Tracer | None, plan: RunPlan, cells_max: int) -> CellTraces | None:
        """None where the run is not recorded."""
        if tracer is None or not is_recorded(plan.traceparent):
            return None
        return cls(tracer, plan, cells_max)

    def begin(self, call: CallId, model: str) -> str:
        """A call of a cell leaves: the trace context to send along, empty where the cell is not followed."""
        cell = call.cell
        if cell * _SPREAD % _RANGE >= self._below:
            return ""
        span = self._spans.get(cell)
        if span is None:
            attributes: dict[str, Attribute] = {
                "llmlab.run.id": self._plan.run_id,
                "llmlab.cell": cell,
                "gen_ai.request.model": model,
            }
            span = self._tracer.begin("cell", self._plan.traceparent, kind="client", attributes=attributes)
            self._spans[cell] = span
        return span.traceparent

    def context(self, cell: int) -> str:
        """The trace context for what is done for a cell beside its call; empty where it is not followed."""
        span = self._spans.get(cell)
        return "" if span is None else span.traceparent

    def told(self, call: CallId, failure: str) -> None:
        """A call ended, with an answer or this reason. The last one decides how the cell ends."""
        if call.cell in self._spans:
            self._failures[call.cell] = failure

    def end(self, cell: int) -> None:
        """Nothing is left to do here for a cell."""
        span = self._spans.pop(cell, None)
        if span is None:
            return
        reason = self._failures.pop(cell, "")
        if reason:
            span.fail(reason)
        span.end()
