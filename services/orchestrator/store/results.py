"""Results in the ledger, page by page; no transaction outlives a page."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, select

from services.orchestrator.records import ResultBodies, ResultRecord
from services.orchestrator.states import CellStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.commit import BRANDS_SCORE_SET, DEFAULT_SCORE_SET
from services.orchestrator.store.rows import result_of

_BRANDS = t.scores.alias("brand_scores")


@dataclass(frozen=True, slots=True)
class ResultQuery:
    """A page of one run's results, by cell. Empty filters take everything.

    `models` are indices in the run's spec; `sequence_max` leaves out what came after a moment (None: nothing).
    """

    run_id: str
    after_cell: int = -1
    limit: int = 100
    statuses: Collection[CellStatus] = ()
    models: Collection[int] = ()
    sequence_max: int | None = None
    bodies: bool = False
    scored_only: bool = False
    brands: bool = False

    def after(self, cell: int) -> ResultQuery:
        """The page behind this one, which ended at `cell`."""
        return replace(self, after_cell=cell)


class StoredResult(NamedTuple):
    """A result with what was asked for of its bodies."""

    record: ResultRecord
    bodies: ResultBodies


def page_results(connection: Connection, query: ResultQuery) -> list[StoredResult]:
    """One page, in the order of the cells."""
    r = t.results.c
    statement = _select(query).where(r.run_id == query.run_id, r.cell > query.after_cell)
    if query.statuses:
        statement = statement.where(r.status.in_([status.value for status in query.statuses]))
    if query.models:
        statement = statement.where(r.model.in_(list(query.models)))
    if query.scored_only:
        statement = statement.where(r.scored.is_(True))
    if query.sequence_max is not None:
        statement = statement.where(r.sequence <= query.sequence_max)
    rows = connection.execute(statement.order_by(r.cell).limit(query.limit)).mappings()
    return [StoredResult(result_of(row), _bodies(row)) for row in rows]


def get_result(connection: Connection, run_id: str, cell: int) -> StoredResult | None:
    """One result with all its bodies; None where the cell has not ended."""
    query = ResultQuery(run_id, after_cell=cell - 1, limit=1, bodies=True, brands=True)
    for stored in page_results(connection, query):
        if stored.record.cell == cell:
            return stored
    return None


def _select(query: ResultQuery) -> Select[Any]:
    columns: list[Any] = list(t.results.c)
    source: Any = t.results
    if query.bodies:
        columns += [t.result_bodies.c.answer, t.result_bodies.c.error]
        source = source.outerjoin(t.result_bodies, _same_cell(t.result_bodies))
    columns.append(t.scores.c.packed)
    same = and_(_same_cell(t.scores), t.scores.c.score_set == DEFAULT_SCORE_SET)
    source = source.outerjoin(t.scores, same)
    if query.brands:
        columns.append(_BRANDS.c.packed.label("brands"))
        source = source.outerjoin(_BRANDS, and_(_same_cell(_BRANDS), _BRANDS.c.score_set == BRANDS_SCORE_SET))
    return select(*columns).select_from(source)


def _same_cell(table: Any) -> Any:
    return and_(table.c.run_id == t.results.c.run_id, table.c.cell == t.results.c.cell)


def _bodies(values: Any) -> ResultBodies:
    return ResultBodies(
        answer=bytes(values.get("answer") or b""),
        error=bytes(values.get("error") or b""),
        scores=bytes(values.get("packed") or b""),
        brands=bytes(values.get("brands") or b""),
    )
