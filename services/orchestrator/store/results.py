"""Results in the ledger, page by page; no transaction outlives a page."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, or_, select, tuple_

from services.orchestrator.records import AttemptRecord, ResultBodies, ResultRecord
from services.orchestrator.states import CellStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.commit import BRANDS_SCORE_SET, DEFAULT_SCORE_SET
from services.orchestrator.store.rows import money_of, result_of, usage_of

_BRANDS = t.scores.alias("brand_scores")

Position = tuple[int | float, ...]
"""Where a page ended: the values of the order's columns."""


class ResultOrder(Enum):
    """Orders of a run's results: the columns, each with an index, and whether they fall."""

    CELL = (("cell",), False)
    OLDEST_FIRST = (("sequence",), False)
    NEWEST_FIRST = (("sequence",), True)
    FASTEST_FIRST = (("latency_us", "cell"), False)
    SLOWEST_FIRST = (("latency_us", "cell"), True)
    CHEAPEST_FIRST = (("cost_nano_usd", "cell"), False)
    DEAREST_FIRST = (("cost_nano_usd", "cell"), True)
    BEST_FIRST = (("merit", "cell"), True)
    WORST_FIRST = (("merit", "cell"), False)

    @property
    def by_score(self) -> bool:
        """Whether it is an order of scores; results without one are not in it."""
        return self in (ResultOrder.BEST_FIRST, ResultOrder.WORST_FIRST)

    def position(self, stored: StoredResult) -> Position:
        """Where a result is in this order."""
        record = stored.record
        values: dict[str, int | float] = {
            "cell": record.cell,
            "sequence": record.sequence,
            "latency_us": record.timing.latency_us,
            "cost_nano_usd": record.cost.nano_usd,
            "merit": stored.merit or 0.0,
        }
        return tuple(values[name] for name in self.value[0])


class Bodies(Enum):
    """What is read beside the result itself."""

    NONE = 0
    ERRORS = 1
    ALL = 2


@dataclass(frozen=True, slots=True)
class ResultQuery:
    """A page of one run's results. Empty filters take everything.

    `models` are indices in the run's spec, `cells` ranges of which one has to hold the cell (first, last);
    `sequence_max` leaves out what came after a moment (None: nothing).
    """

    run_id: str
    order: ResultOrder = ResultOrder.CELL
    after: Position = ()
    limit: int = 100
    statuses: Collection[CellStatus] = ()
    models: Collection[int] = ()
    cells: Collection[tuple[int, int]] = ()
    error_reasons: Collection[str] = ()
    sequence_max: int | None = None
    bodies: Bodies = Bodies.NONE
    scored_only: bool = False
    brands: bool = False
    score_set: str = DEFAULT_SCORE_SET

    def behind(self, stored: StoredResult) -> ResultQuery:
        """The page behind this one, which ended with that result."""
        return replace(self, after=self.order.position(stored))

    def behind_cell(self, cell: int) -> ResultQuery:
        """The page behind a cell, in the order of cells."""
        return replace(self, after=(cell,))


class StoredResult(NamedTuple):
    """A result with what was asked for of its bodies."""

    record: ResultRecord
    bodies: ResultBodies
    merit: float | None = None


def page_results(connection: Connection, query: ResultQuery) -> list[StoredResult]:
    """One page, in the order that is asked for."""
    found = [stored for part in _by_one_index(query) for stored in _read(connection, part)]
    found.sort(key=query.order.position, reverse=query.order.value[1])
    return found[: query.limit]


def _by_one_index(query: ResultQuery) -> list[ResultQuery]:
    """The query by one reason or one state each, whose cells an index has in order.

    For several at once both databases would go through all cells of the run, where they do not sort all that match.
    """
    if query.order is not ResultOrder.CELL:
        return [query]
    if query.error_reasons:
        return [replace(query, error_reasons=[reason]) for reason in sorted(query.error_reasons)]
    return [replace(query, statuses=[status]) for status in query.statuses] or [query]


def _read(connection: Connection, query: ResultQuery) -> list[StoredResult]:
    r = t.results.c
    names, falls = query.order.value
    # By scores both columns are of the table of scores, whose index has them in order.
    columns = [t.scores.c[name] if query.order.by_score else r[name] for name in names]
    statement = _select(query).where(r.run_id == query.run_id, *_conditions(query))
    if names[0] == "latency_us":
        statement = statement.where(r.latency_us > 0, r.status == CellStatus.DONE.value)
    if query.order.by_score:
        statement = statement.where(t.scores.c.run_id == query.run_id, t.HAS_MERIT)
    if query.after:
        here, there = tuple_(*columns), tuple_(*query.after)
        statement = statement.where(here < there if falls else here > there)
    ordered = statement.order_by(*(column.desc() if falls else column for column in columns)).limit(query.limit)
    return [StoredResult(result_of(row), _bodies(row), row["merit"]) for row in connection.execute(ordered).mappings()]


def _conditions(query: ResultQuery) -> list[Any]:
    r = t.results.c
    conditions: list[Any] = []
    if query.statuses:
        conditions.append(_among(r.status, [status.value for status in query.statuses]))
    if query.models:
        conditions.append(r.model.in_(list(query.models)))
    if query.cells:
        conditions.append(or_(*(r.cell.between(first, last) for first, last in query.cells)))
    if query.error_reasons:
        # The second condition is that of the index, which has the cells that failed and no others.
        conditions += [_among(r.error_reason, sorted(query.error_reasons)), t.HAS_REASON]
    if query.scored_only:
        is_default = query.score_set == DEFAULT_SCORE_SET
        conditions.append(r.scored.is_(True) if is_default else t.scores.c.packed.is_not(None))
    if query.sequence_max is not None:
        # An expression: by the index of sequences all results of the run would be sorted for one page.
        conditions.append(r.sequence + 0 <= query.sequence_max)
    return conditions


def _among(column: Any, values: list[str]) -> Any:
    return column == values[0] if len(values) == 1 else column.in_(values)


def get_result(connection: Connection, run_id: str, cell: int) -> StoredResult | None:
    """One result with all its bodies; None where the cell has not ended."""
    query = ResultQuery(run_id, cells=[(cell, cell)], limit=1, bodies=Bodies.ALL, brands=True)
    return next(iter(page_results(connection, query)), None)


def attempts_of(connection: Connection, run_id: str, cell: int) -> list[tuple[AttemptRecord, int]]:
    """A cell's attempts that did not give its result, oldest first, each with its time in microseconds UTC."""
    rows = connection.execute(_ATTEMPTS.where(t.attempts.c.run_id == run_id, t.attempts.c.cell == cell)).mappings()
    return [
        (
            AttemptRecord(cell, row["attempt"], row["outcome"], row["reason"], usage_of(row), money_of(row)),
            row["at_us"],
        )
        for row in rows
    ]


_ATTEMPTS_SHOWN_MAX = 1_000
_ATTEMPTS = select(t.attempts).order_by(t.attempts.c.attempt).limit(_ATTEMPTS_SHOWN_MAX)


def _select(query: ResultQuery) -> Select[Any]:
    columns: list[Any] = list(t.results.c)
    source: Any = t.results
    if query.bodies is not Bodies.NONE:
        columns += [t.result_bodies.c.answer] if query.bodies is Bodies.ALL else []
        columns.append(t.result_bodies.c.error)
        source = source.outerjoin(t.result_bodies, _same_cell(t.result_bodies))
    columns += [t.scores.c.packed, t.scores.c.merit]
    same = and_(_same_cell(t.scores), t.scores.c.score_set == query.score_set)
    source = source.join(t.scores, same, isouter=not query.order.by_score)
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
