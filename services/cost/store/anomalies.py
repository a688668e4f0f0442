"""Anomalies in the database: found once, listed, watched."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import BigInteger, Connection, and_, bindparam, delete, func, literal, or_, select
from sqlalchemy.engine import RowMapping

from services.cost.insights import (
    HISTORY_HOURS,
    HOUR_US,
    LOOK_BACK_HOURS,
    Anomaly,
    AnomalyDraft,
    AnomalyQuery,
    HourlySpend,
    SearchLimits,
    series_to_watch,
)
from services.cost.rollups import TAIL_EVENTS_MAX
from services.cost.spend import EVERYTHING, Dimension, Order, SpendFilter, SpendQuery
from services.cost.store.insight_tables import anomalies, anomaly_searches
from services.cost.store.projects import lock_project
from services.cost.store.spend import series_of
from services.cost.store.spend_sql import Slot, SpendReader
from services.cost.store.tables import projects, spend_progress
from services.cost.windows import AskedWindow, Window
from services.runtime.database import Database
from services.runtime.feeds import Kept

WEEK_HOURS: Final = 168
_BY_MODEL: Final = SpendQuery(AskedWindow(), (Dimension.MODEL,), order=Order.COST)

_PROJECT: Final = projects.c.project_id
_UNFOLDED: Final = projects.c.event_sequence - func.coalesce(spend_progress.c.folded_sequence, 0)
_DUE: Final = (
    select(_PROJECT, func.coalesce(anomaly_searches.c.judged_until_us, 0).label("judged_until_us"))
    .outerjoin_from(projects, anomaly_searches, anomaly_searches.c.project_id == _PROJECT)
    .outerjoin(spend_progress, spend_progress.c.project_id == _PROJECT)
    .where(
        func.coalesce(anomaly_searches.c.judged_until_us, 0) < bindparam("until_us"),
        # Behind a backlog of millions each question would run into its deadline.
        bindparam("max_unfolded") >= _UNFOLDED,
    )
    .order_by("judged_until_us", projects.c.project_id)
    .limit(bindparam("max_projects"))
)
_SEARCH: Final = select(anomaly_searches).where(anomaly_searches.c.project_id == bindparam("project_id"))
DraftKey = tuple[int, str, str]
"""The hour, the provider and the model, by which an anomaly is on record once."""
_TOLD: Final = select(anomalies.c.start_us, anomalies.c.provider, anomalies.c.model).where(
    anomalies.c.project_id == bindparam("project_id"), anomalies.c.start_us >= bindparam("from_us")
)
_FIRST: Final = select(func.min(anomalies.c.sequence)).where(anomalies.c.project_id == bindparam("project_id"))
_AFTER: Final = (
    select(anomalies)
    .where(anomalies.c.project_id == bindparam("project_id"), anomalies.c.sequence > bindparam("after"))
    .order_by(anomalies.c.sequence)
    .limit(bindparam("max_anomalies"))
)


@dataclass(frozen=True, slots=True)
class DueSearch:
    """A project with an hour before `until_us` that has not been judged; those from `from_us` on are judged again."""

    project_id: str
    judged_until_us: int
    """As it is on record; 0 before the first search."""
    until_us: int

    @property
    def from_us(self) -> int:
        """Hours that are long gone are not judged."""
        return self.until_us - LOOK_BACK_HOURS * HOUR_US


class AnomalyStore:
    """A project's anomalies; also the source of its feed, whose id is the project's."""

    def __init__(self, database: Database, limits: SearchLimits) -> None:
        self._database = database
        self._limits = limits

    async def due(self, delay_us: int, max_projects: int) -> list[DueSearch]:
        """Projects with hours that ended `delay_us` ago or earlier and are not judged, the longest waiting first.

        One with a backlog, of which the roller has more to fold than a summary may read, is due when that is folded.
        """
        return await self._database.read(self._due, delay_us, max_projects)

    def _due(self, connection: Connection, delay_us: int, max_projects: int) -> list[DueSearch]:
        until_us = (self._database.now_us(connection) - delay_us) // HOUR_US * HOUR_US
        named = {"until_us": until_us, "max_projects": max_projects, "max_unfolded": TAIL_EVENTS_MAX}
        rows = connection.execute(_DUE, named)
        return [DueSearch(row.project_id, row.judged_until_us, until_us) for row in rows]

    async def watched_series(self, search: DueSearch) -> list[SpendFilter]:
        """The series of a project that are to be judged."""
        return await self._database.read(self._watched_series, search)

    def _watched_series(self, connection: Connection, search: DueSearch) -> list[SpendFilter]:
        week = Slot(search.until_us - WEEK_HOURS * HOUR_US, search.until_us, 0)
        reader = SpendReader(connection, search.project_id, EVERYTHING)
        groups = reader.groups(_BY_MODEL, [week], {}, max(1, self._limits.max_series))
        spent = [(*_split(str(row.keys[0])), row.sums.cost_nano_usd) for row in groups]
        return series_to_watch(spent, self._limits)

    async def hourly_spend(self, search: DueSearch, of: SpendFilter) -> HourlySpend:
        """What the hours of a series cost, with the weeks before those that are to be judged."""
        start_us = search.from_us - HISTORY_HOURS * HOUR_US
        window = Window(start_us, search.until_us)
        return HourlySpend(of, start_us, await self._database.read(series_of, search.project_id, of, window, HOUR_US))

    async def untold(self, search: DueSearch, found: list[AnomalyDraft]) -> list[AnomalyDraft]:
        """Those that are not on record, in the order of their hours and series."""
        told = await self._database.read(_told, search)
        return sorted([draft for draft in found if _key_of(draft) not in told], key=_key_of)

    async def record(self, search: DueSearch, found: list[AnomalyDraft]) -> bool:
        """Write what a search has found; False when another replica has been faster, and nothing is written."""
        return await self._database.write(self._record, search, found)

    def _record(self, connection: Connection, search: DueSearch, found: list[AnomalyDraft]) -> bool:
        lock_project(connection, self._database, search.project_id)
        known = connection.execute(_SEARCH, {"project_id": search.project_id}).one_or_none()
        if (known.judged_until_us if known else 0) != search.judged_until_us:
            return False
        last = known.last_sequence if known else 0
        now_us = self._database.now_us(connection)
        rows = [_row_of(search.project_id, last + number, now_us, draft) for number, draft in enumerate(found, start=1)]
        self._database.insert_rows(connection, anomalies, rows)
        last += len(rows)
        self._database.insert_rows(
            connection,
            anomaly_searches,
            [{"project_id": search.project_id, "judged_until_us": search.until_us, "last_sequence": last}],
            on_conflict="(project_id) DO UPDATE SET judged_until_us = excluded.judged_until_us,"
            " last_sequence = excluded.last_sequence",
        )
        columns = anomalies.c
        old = columns.sequence <= last - self._limits.max_kept
        connection.execute(delete(anomalies).where(columns.project_id == search.project_id, old))
        return True

    async def page(
        self, project_id: str, query: AnomalyQuery, *, before: tuple[int, int] | None, limit: int
    ) -> list[Anomaly]:
        """At most `limit` anomalies, those of the newest hours first, after the (hour, sequence) named."""
        return await self._database.read(_page, project_id, query, before, limit)

    def topic(self, feed_id: str) -> str:
        """The topic of hints that a project has new anomalies."""
        return f"anomalies:{feed_id}"

    async def kept(self, feed_id: str) -> Kept:
        """The sequences of the project's anomalies."""
        return await self._database.read(_kept, feed_id)

    async def read_events(self, feed_id: str, after: int, limit: int) -> list[Anomaly]:
        """At most `limit` anomalies of the project after a sequence, in their order."""
        return await self._database.read(_read_after, feed_id, after, limit)

    def is_last(self, event: Anomaly) -> bool:
        """A project has always another anomaly to come."""
        return False


def _told(connection: Connection, search: DueSearch) -> set[DraftKey]:
    named = {"project_id": search.project_id, "from_us": search.from_us}
    return {(row.start_us, row.provider, row.model) for row in connection.execute(_TOLD, named)}


def _key_of(draft: AnomalyDraft) -> DraftKey:
    return draft.start_us, draft.provider, draft.model


def _split(model: str) -> tuple[str, str]:
    provider, _, name = model.partition("/")
    return provider, name


def _page(
    connection: Connection, project_id: str, query: AnomalyQuery, before: tuple[int, int] | None, limit: int
) -> list[Anomaly]:
    columns = anomalies.c
    statement = select(anomalies).where(
        columns.project_id == project_id, columns.start_us >= query.start_us, columns.start_us < query.end_us
    )
    if query.provider:
        statement = statement.where(columns.provider == query.provider)
    if query.model:
        statement = statement.where(columns.model == query.model)
    if query.impact_min:
        least = literal(query.impact_min, BigInteger)
        statement = statement.where(func.abs(columns.observed_nano_usd - columns.expected_nano_usd) >= least)
    if before is not None:
        start_us, sequence = before
        earlier = and_(columns.start_us == start_us, columns.sequence < sequence)
        statement = statement.where(or_(columns.start_us < start_us, earlier))
    newest_first = statement.order_by(columns.start_us.desc(), columns.sequence.desc()).limit(limit)
    return [_anomaly_of(row) for row in connection.execute(newest_first).mappings()]


def _kept(connection: Connection, project_id: str) -> Kept:
    named = {"project_id": project_id}
    search = connection.execute(_SEARCH, named).one_or_none()
    last = search.last_sequence if search else 0
    return Kept(connection.execute(_FIRST, named).scalar_one_or_none() or last + 1, last)


def _read_after(connection: Connection, project_id: str, after: int, limit: int) -> list[Anomaly]:
    rows = connection.execute(_AFTER, {"project_id": project_id, "after": after, "max_anomalies": limit}).mappings()
    return [_anomaly_of(row) for row in rows]


def _row_of(project_id: str, sequence: int, now_us: int, draft: AnomalyDraft) -> dict[str, str | int | float]:
    return {
        "project_id": project_id,
        "sequence": sequence,
        "provider": draft.provider,
        "model": draft.model,
        "start_us": draft.start_us,
        "observed_nano_usd": draft.observed,
        "expected_nano_usd": draft.expected,
        "lower_nano_usd": draft.lower,
        "upper_nano_usd": draft.upper,
        "score": draft.score,
        "created_us": now_us,
    }


def _anomaly_of(row: RowMapping) -> Anomaly:
    draft = AnomalyDraft(
        row["provider"],
        row["model"],
        row["start_us"],
        row["observed_nano_usd"],
        row["expected_nano_usd"],
        row["lower_nano_usd"],
        row["upper_nano_usd"],
        row["score"],
    )
    return Anomaly(row["sequence"], row["created_us"], draft)
