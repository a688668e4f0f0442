"""Repricings in the database: each step is one transaction of bounded size."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from services.cost.ledger import Ledger
from services.cost.posting import Posting
from services.cost.pricing.catalogue import Catalogue, PriceSource
from services.cost.pricing.overrides import ProjectPrices
from services.cost.pricing.repricing import (
    BEGINNING,
    UNFINISHED,
    Adjustment,
    Difference,
    Look,
    Place,
    Repricing,
    RepricingFilter,
    RepricingState,
    superseded,
    unfinished,
)
from services.cost.store.alert_writer import AlertKey
from services.cost.store.books import BookKeeper
from services.cost.store.price_books import overrides_of
from services.cost.store.projects import lock_project
from services.cost.store.repricing_reader import RepricingReader
from services.cost.store.rows import event_of
from services.cost.store.tables import adjustments, projects, repricings, usage_events
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound

_DIFFERENCE: Final = (
    "calls",
    "changed_calls",
    "newly_priced_calls",
    "unpriced_calls",
    "old_nano_usd",
    "new_nano_usd",
)


class RepricingStore:
    """The repricings of projects. Each method is one transaction."""

    def __init__(self, database: Database, keeper: BookKeeper, catalogue: Catalogue) -> None:
        self._database = database
        self._keeper = keeper
        self._catalogue = catalogue
        self._reader = RepricingReader(database)

    async def revision(self, project_id: str) -> int:
        """The project's present revision of prices."""
        return await self._database.read(self._revision, project_id)

    def _revision(self, connection: Connection, project_id: str) -> int:
        statement = select(projects.c.prices_revision).where(projects.c.project_id == project_id)
        return connection.execute(statement).scalar_one_or_none() or 0

    async def look(self, project_id: str, wanted: RepricingFilter, revision: int, after: Place, limit: int) -> Look:
        """The next events after a place, with what they count as and what the prices of a revision would change."""
        return await self._database.read(self._look, project_id, wanted, revision, after, limit)

    def _look(
        self, connection: Connection, project_id: str, wanted: RepricingFilter, revision: int, after: Place, limit: int
    ) -> Look:
        prices = self._prices(connection, project_id, revision, self._catalogue.version)
        return self._reader.look(connection, project_id, wanted, prices, after, limit)

    async def start(self, project_id: str, repricing_id: str, request_id: str, wanted: RepricingFilter) -> Repricing:
        """Put a repricing on record, by the prices of now; a repeat of its request gives the one that is there.

        Raises AlreadyExists(REQUEST_ID_REUSED) for another filter, and WrongState while another one is under way.
        """
        return await self._database.write(self._start, project_id, repricing_id, request_id, wanted)

    def _start(
        self, connection: Connection, project_id: str, repricing_id: str, request_id: str, wanted: RepricingFilter
    ) -> Repricing:
        locked = lock_project(connection, self._database, project_id)
        own = select(repricings).where(repricings.c.project_id == project_id)
        known = connection.execute(own.where(repricings.c.request_id == request_id)).mappings().one_or_none()
        if known is not None:
            found = _repricing_of(known)
            if found.wanted != wanted:
                raise _reused(request_id)
            return found
        states = [state.value for state in UNFINISHED]
        running = connection.execute(own.where(repricings.c.state.in_(states))).mappings().first()
        if running is not None:
            raise unfinished(_repricing_of(running))
        # Under the project's lock: no two have one number, and a later one has a higher number whatever clocks say.
        last = select(func.max(repricings.c.number)).where(repricings.c.project_id == project_id)
        new = Repricing(
            repricing_id=repricing_id,
            number=(connection.execute(last).scalar_one() or 0) + 1,
            request_id=request_id,
            wanted=wanted,
            state=RepricingState.APPLYING,
            catalogue_version=self._catalogue.version,
            prices_revision=locked.prices_revision,
            difference=Difference(),
            created_us=self._database.now_us(connection),
        )
        connection.execute(insert(repricings), _row_of(project_id, new))
        return new

    async def apply(self, project_id: str, repricing_id: str, limit: int) -> Repricing:
        """Price the next events of a repricing anew, at most `limit`; where there are none it becomes APPLIED."""
        repricing, raised = await self._database.write(self._apply, project_id, repricing_id, limit)
        self._keeper.committed(raised)
        return repricing

    def _apply(
        self, connection: Connection, project_id: str, repricing_id: str, limit: int
    ) -> tuple[Repricing, list[AlertKey]]:
        lock_project(connection, self._database, project_id)
        row = self._row(connection, project_id, repricing_id)
        found = _repricing_of(row)
        if found.state is not RepricingState.APPLYING:
            return found, []
        prices = self._prices(connection, project_id, found.prices_revision, found.catalogue_version)
        after = (row["after_us"], row["after_source"], row["after_event_id"])
        look = self._reader.look(connection, project_id, found.wanted, prices, after, limit)
        difference = found.difference
        for _, now, change in look.examined:
            difference.add(now, change)
        changes = [change for _, _, change in look.examined if change is not None]
        raised = self._record(connection, project_id, repricing_id, row["adjustments"] + 1, changes, "")
        state = RepricingState.APPLYING if look.more else RepricingState.APPLIED
        values = {
            "state": state.value,
            "adjustments": row["adjustments"] + len(changes),
            **dict(zip(("after_us", "after_source", "after_event_id"), look.place, strict=True)),
            **{name: getattr(difference, name) for name in _DIFFERENCE},
        }
        self._update(connection, repricing_id, values)
        return replace(found, state=state), raised

    async def reverse(self, project_id: str, repricing_id: str, limit: int) -> Repricing:
        """Take the next adjustments of a repricing back, at most `limit`; where there are none it becomes REVERSED.

        Raises NotFound for another project's too, and WrongState where a later repricing stands.
        """
        repricing, raised = await self._database.write(self._reverse, project_id, repricing_id, limit)
        self._keeper.committed(raised)
        return repricing

    def _reverse(
        self, connection: Connection, project_id: str, repricing_id: str, limit: int
    ) -> tuple[Repricing, list[AlertKey]]:
        lock_project(connection, self._database, project_id)
        row = self._row(connection, project_id, repricing_id)
        found = _repricing_of(row)
        if found.state is RepricingState.REVERSED:
            return found, []
        self._check_latest(connection, project_id, repricing_id, row["number"])
        done = row["reversed"]
        changes = self._to_reverse(connection, project_id, repricing_id, done, limit)
        raised = self._record(connection, project_id, repricing_id, done + 1, changes, "r")
        more = done + len(changes) < row["adjustments"]
        state = RepricingState.REVERSING if more else RepricingState.REVERSED
        self._update(connection, repricing_id, {"state": state.value, "reversed": done + len(changes)})
        return replace(found, state=state), raised

    async def page(self, project_id: str, *, after: int, limit: int) -> list[Repricing]:
        """At most `limit` repricings in the order of their beginnings, after the number given."""
        return await self._database.read(self._page, project_id, after, limit)

    def _page(self, connection: Connection, project_id: str, after: int, limit: int) -> list[Repricing]:
        wanted = (repricings.c.project_id == project_id, repricings.c.number > after)
        statement = select(repricings).where(*wanted).order_by(repricings.c.number).limit(limit)
        return [_repricing_of(row) for row in connection.execute(statement).mappings()]

    def _prices(self, connection: Connection, project_id: str, revision: int, version: str) -> PriceSource:
        """The prices of a project as they were in a revision, by a version of the catalogue."""
        catalogue = self._catalogue if version == self._catalogue.version else Catalogue.load(version)
        known = [override.as_of(revision) for override in overrides_of(connection, project_id)]
        return ProjectPrices(catalogue, [override for override in known if override is not None])

    def _record(
        self,
        connection: Connection,
        project_id: str,
        repricing_id: str,
        first: int,
        changes: Sequence[Adjustment],
        suffix: str,
    ) -> list[AlertKey]:
        """Write adjustments, numbered from `first`, into the books; a suffix makes them opposites of those numbers."""
        if not changes:
            return []
        numbered = [
            (f"{repricing_id}/{number:09d}{suffix}", number, each) for number, each in enumerate(changes, first)
        ]

        def apply(ledger: Ledger) -> None:
            for adjustment_id, _, each in numbered:
                ledger.adjust(each.record(adjustment_id, ledger.now_us))

        charges = tuple([(each.event.target, each.event.charged_us) for each in changes])
        with self._database.exchange_within(connection) as exchange:
            _, raised = self._keeper.post_within(exchange, [Posting(project_id, apply, charges=charges)])
        rows = [
            {
                "project_id": project_id,
                "source": each.event.source,
                "event_id": each.event.event_id,
                "adjustment_id": adjustment_id,
                "repricing_id": repricing_id,
                "number": -number if suffix else number,
                "nano_usd": each.nano_usd,
                "unpriced_calls": each.unpriced_calls,
                "price_version": each.price_version,
            }
            for adjustment_id, number, each in numbered
        ]
        self._database.insert_rows(connection, adjustments, rows)
        return raised

    def _to_reverse(
        self, connection: Connection, project_id: str, repricing_id: str, done: int, limit: int
    ) -> list[Adjustment]:
        """The opposites of the next adjustments, by number."""
        columns = adjustments.c
        of_event = (
            (usage_events.c.project_id == columns.project_id)
            & (usage_events.c.source == columns.source)
            & (usage_events.c.event_id == columns.event_id)
        )
        wanted = (columns.project_id == project_id, columns.repricing_id == repricing_id, columns.number > done)
        made = [columns.nano_usd, columns.unpriced_calls.label("delta"), columns.price_version]
        labelled = [column.label(f"adjustment_{column.key}") for column in made]
        statement = (
            select(usage_events, *labelled)
            .join_from(adjustments, usage_events, of_event)
            .where(*wanted)
            .order_by(columns.number)
            .limit(limit)
        )
        return [
            Adjustment(
                event=event_of(row),
                nano_usd=row["adjustment_nano_usd"],
                unpriced_calls=row["adjustment_delta"],
                price_version=row["adjustment_price_version"],
            ).opposite()
            for row in connection.execute(statement).mappings()
        ]

    def _check_latest(self, connection: Connection, project_id: str, repricing_id: str, number: int) -> None:
        columns = repricings.c
        later = select(columns.repricing_id).where(
            columns.project_id == project_id,
            columns.number > number,
            columns.state != RepricingState.REVERSED.value,
        )
        ids = list(connection.execute(later.order_by(columns.number)).scalars())
        if ids:
            raise superseded(repricing_id, ids)

    def _row(self, connection: Connection, project_id: str, repricing_id: str) -> RowMapping:
        own = (repricings.c.repricing_id == repricing_id, repricings.c.project_id == project_id)
        row = connection.execute(select(repricings).where(*own)).mappings().one_or_none()
        if row is None:
            raise NotFound("repricing", repricing_id)
        return row

    def _update(self, connection: Connection, repricing_id: str, values: dict[str, Any]) -> None:
        connection.execute(update(repricings).where(repricings.c.repricing_id == repricing_id).values(values))


def _reused(request_id: str) -> AlreadyExists:
    return AlreadyExists(
        "REQUEST_ID_REUSED",
        f"The request id {request_id!r} was used for a repricing with another window or filter; use a new one.",
        metadata={"request_id": request_id},
    )


def _repricing_of(row: RowMapping) -> Repricing:
    return Repricing(
        repricing_id=row["repricing_id"],
        number=row["number"],
        request_id=row["request_id"],
        wanted=RepricingFilter(row["start_us"], row["end_us"], row["provider"], row["model"]),
        state=RepricingState(row["state"]),
        catalogue_version=row["catalogue_version"],
        prices_revision=row["prices_revision"],
        difference=Difference(**{name: row[name] for name in _DIFFERENCE}),
        created_us=row["created_us"],
    )


def _row_of(project_id: str, new: Repricing) -> dict[str, Any]:
    after_us, after_source, after_event_id = BEGINNING
    return {
        "repricing_id": new.repricing_id,
        "number": new.number,
        "project_id": project_id,
        "request_id": new.request_id,
        "provider": new.wanted.provider,
        "model": new.wanted.model,
        "state": new.state.value,
        "catalogue_version": new.catalogue_version,
        "start_us": new.wanted.start_us,
        "end_us": new.wanted.end_us,
        "prices_revision": new.prices_revision,
        "created_us": new.created_us,
        "adjustments": 0,
        "reversed": 0,
        **{name: getattr(new.difference, name) for name in _DIFFERENCE},
        "after_source": after_source,
        "after_event_id": after_event_id,
        "after_us": after_us,
    }
