"""What was spent, from the rollups."""

from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, ColumnElement, Connection, Table, and_, func, literal, or_, select, tuple_

from services.cost.spend import (
    DAY_US,
    Dimension,
    SpendFilter,
    SpendQuery,
    SpendRow,
    SpendSummary,
    Sums,
    Window,
    window_of,
)
from services.cost.store.rows import sums_of
from services.cost.store.tables import projects, spend_by_model, spend_by_tag, usage_events
from services.cost.usage import COUNT_FIELDS
from services.runtime.database import Database

_SUMMED: Final = ("calls", "unpriced_calls", "cost_nano_usd", *COUNT_FIELDS)


class SpendStore:
    """Reads spend; each method sees one snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def summarize(self, project_id: str, query: SpendQuery) -> SpendSummary:
        """A page of groups, and the total of the window."""
        return await self._database.read(self._summarize, project_id, query)

    def _summarize(self, connection: Connection, project_id: str, query: SpendQuery) -> SpendSummary:
        window = window_of(query.start_us, query.end_us, self._database.now_us(connection))
        rows: list[SpendRow] = []
        if query.group_by:
            rows = groups_of(
                connection, project_id, window, query.group_by, after=query.after, limit=query.page_size + 1
            )
        return SpendSummary(
            rows=rows[: query.page_size],
            more=len(rows) > query.page_size,
            total=total_of(connection, project_id, window),
            held_nano_usd=held_in_project(connection, project_id),
            window=window,
        )


def total_of(connection: Connection, project_id: str, window: Window) -> Sums:
    """Everything that was spent in a window, each call once."""
    if not window.spans():
        return Sums()
    statement = select(*_sums_of(spend_by_model)).where(_within(spend_by_model, project_id, window))
    return sums_of(connection.execute(statement).mappings().one())


def spent_in(connection: Connection, project_id: str, spend_filter: SpendFilter, window: Window) -> int:
    """What the usage that fits a filter cost in a window, nano-USD; unpriced calls add nothing."""
    return sum(series_of(connection, project_id, spend_filter, window, window.end_us - window.start_us))


def series_of(
    connection: Connection, project_id: str, spend_filter: SpendFilter, window: Window, step_us: int
) -> list[int]:
    """What `spent_in` gives, for each step of a window in their order, nano-USD.

    Steps are hours, days or other whole numbers of quarter-hours from the window's start; the last may be cut short.
    """
    columns = usage_events.c
    step = ((columns.occurred_us - window.start_us) // literal(step_us, BigInteger)).label("step")
    statement = (
        select(step, func.sum(columns.cost_nano_usd).label("cost_nano_usd"))
        .where(
            columns.project_id == project_id,
            columns.occurred_us >= window.start_us,
            columns.occurred_us < window.end_us,
            *_fitting(spend_filter),
        )
        .group_by(step)
    )
    series = [0] * -(-(window.end_us - window.start_us) // step_us)
    for row in connection.execute(statement):
        series[row.step] = int(row.cost_nano_usd)
    return series


def _fitting(spend_filter: SpendFilter) -> list[ColumnElement[bool]]:
    """The conditions of a filter on usage events."""
    columns = usage_events.c
    wanted = {name: getattr(spend_filter, name) for name in ("provider", "model", "user_id", "key_id", "run_id")}
    conditions = [columns[name] == value for name, value in wanted.items() if value]
    if spend_filter.tag:
        # Inside a JSON text every quote follows a backslash: a comma and a quote begin an entry, and nothing else does.
        name, _, value = spend_filter.tag.partition("=")
        entry = f",{orjson.dumps(name).decode()}:{orjson.dumps(value).decode()}"
        entries = literal(",") + func.substr(columns.tags, 2)
        conditions.append(func.replace(entries, entry, "") != entries)
    return conditions


def held_in_project(connection: Connection, project_id: str) -> int:
    """What calls under way hold, nano-USD."""
    statement = select(projects.c.held_nano_usd).where(projects.c.project_id == project_id)
    return connection.execute(statement).scalar_one_or_none() or 0


def groups_of(
    connection: Connection,
    project_id: str,
    window: Window,
    group_by: tuple[Dimension, ...],
    *,
    after: tuple[str | int, ...],
    limit: int,
) -> list[SpendRow]:
    """At most `limit` groups by their keys, which follow the keys `after`; an empty `after` is the beginning."""
    table = spend_by_tag if Dimension.TAG in group_by else spend_by_model
    keys = [_key_column(table, dimension) for dimension in group_by]
    statement = select(*keys, *_sums_of(table)).where(_within(table, project_id, window))
    if after:
        statement = statement.where(tuple_(*keys) > tuple_(*[literal(value) for value in after]))
    rows = connection.execute(statement.group_by(*keys).order_by(*keys).limit(limit)).mappings()
    names = [f"key_{dimension.value}" for dimension in group_by]
    return [SpendRow(tuple(row[name] for name in names), sums_of(row)) for row in rows]


def _key_column(table: Table, dimension: Dimension) -> ColumnElement[Any]:
    columns = table.c
    label = f"key_{dimension.value}"
    if dimension is Dimension.DAY:
        return (columns.bucket_us // literal(DAY_US, BigInteger)).label(label)
    if dimension is Dimension.PROVIDER:
        return columns.provider.label(label)
    if dimension is Dimension.MODEL:
        return (columns.provider + "/" + columns.model).label(label)
    return columns.tag.label(label)


def _sums_of(table: Table) -> list[ColumnElement[Any]]:
    return [func.sum(table.c[name]).label(name) for name in _SUMMED]


def _within(table: Table, project_id: str, window: Window) -> ColumnElement[bool]:
    columns = table.c
    spans = [
        and_(columns.grain == grain.value, columns.bucket_us >= start_us, columns.bucket_us < end_us)
        for grain, start_us, end_us in window.spans()
    ]
    return and_(columns.project_id == project_id, or_(*spans))
