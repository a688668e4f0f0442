"""Loading and saving the books of projects: the one transaction of the group commit.

A flush runs as many statements for one request as for a thousand, and locks each project once, in the order of the ids.
"""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from services.cost.events import SETTLED_SOURCE
from services.cost.holds import UNRESOLVED, HoldState, hold_of_event
from services.cost.ledger import Books, EventKey, Ledger, is_acceptable
from services.cost.posting import Posting
from services.cost.pricing.catalogue import PriceSource
from services.cost.scopes import anchors_of
from services.cost.standings import Standings
from services.cost.store.alert_writer import AlertKey, AlertWriter
from services.cost.store.budget_books import BudgetBooks
from services.cost.store.events import append_events
from services.cost.store.price_books import PriceBooks
from services.cost.store.projects import LockedProject, lock_project, set_totals
from services.cost.store.rows import event_of, hold_of, row_of_event, row_of_hold
from services.cost.store.tables import LIVE, balances, holds, usage_events
from services.runtime.database import Database
from services.runtime.errors import DomainError

_PUT_BALANCE: Final = (
    "(budget_id, period) DO UPDATE SET"
    " settled_nano_usd = excluded.settled_nano_usd, held_nano_usd = excluded.held_nano_usd"
)


class BookKeeper:
    """Runs postings on the books of their projects."""

    def __init__(self, database: Database, prices: PriceSource, alerts: AlertWriter) -> None:
        self._database = database
        self._prices = PriceBooks(prices)
        self._budgets = BudgetBooks(database)
        self._alerts = alerts
        # SQLAlchemy keeps the columns' own names for the values of an update.
        of_holds = (holds.c.project_id == bindparam("of_project"), database.among(holds.c.attempt_id, "attempt_ids"))
        self._load_holds = select(holds).where(*of_holds)
        self._move_holds = update(holds).where(*of_holds).values(state=bindparam("new_state"))
        self._expired = (
            select(holds.c.project_id, holds.c.attempt_id)
            .where(LIVE, holds.c.expires_us <= bindparam("now_us"), ~database.among(holds.c.project_id, "without"))
            .order_by(holds.c.expires_us)
            .limit(bindparam("max_holds"))
        )
        self._load_source = database.one_by_one(
            usage_events,
            usage_events.c.event_id,
            "event_ids",
            usage_events.c.project_id == bindparam("project_id"),
            usage_events.c.source == bindparam("source"),
        )
        self._load_balances = select(balances).where(
            database.among(balances.c.budget_id, "budget_ids"), database.among(balances.c.period, "periods")
        )

    async def post(self, postings: Sequence[Posting[Any]]) -> list[Any]:
        """Run the postings in one transaction; each gives its result, or the DomainError that it raised."""
        results, raised = await self._database.write(self.post_within, postings)
        self.committed(raised)
        return results

    async def expired_holds(self, limit: int, without: Collection[str]) -> list[tuple[str, str]]:
        """Live holds whose time is over, the oldest first, as (project id, attempt id); not of the projects named."""
        return await self._database.read(self._expired_holds, limit, without)

    def _expired_holds(self, connection: Connection, limit: int, without: Collection[str]) -> list[tuple[str, str]]:
        due = {"now_us": self._database.now_us(connection), "max_holds": limit, "without": list(without)}
        rows = connection.execute(self._expired, due)
        return [(row.project_id, row.attempt_id) for row in rows]

    def committed(self, raised: Sequence[AlertKey]) -> None:
        """Tell of the alerts that a transaction of `post_within` has raised, after it is durable."""
        self._alerts.committed(raised)

    def post_within(self, connection: Connection, postings: Sequence[Posting[Any]]) -> tuple[list[Any], list[AlertKey]]:
        """As `post`, within a transaction that is open; the alerts that it raises are for `committed`."""
        results: list[Any] = [None] * len(postings)
        raised: list[AlertKey] = []
        ordered = sorted(range(len(postings)), key=lambda index: postings[index].project_id)
        for project_id, indexes in groupby(ordered, key=lambda index: postings[index].project_id):
            of_project = list(indexes)
            locked = lock_project(connection, self._database, project_id)
            ledger = self._open(connection, project_id, locked, [postings[index] for index in of_project])
            for index in of_project:
                try:
                    results[index] = postings[index].apply(ledger)
                except DomainError as refusal:
                    results[index] = refusal
            self._save(connection, locked, ledger)
            raised += self._alerts.raise_new(connection, project_id, ledger.alerts(), ledger.now_us)
        return results, raised

    def _open(
        self, connection: Connection, project_id: str, locked: LockedProject, postings: Sequence[Posting[Any]]
    ) -> Ledger:
        """Load what the postings touch."""
        books = Books(project_id, held_nano_usd=locked.held_nano_usd)
        attempt_ids = {attempt_id for posting in postings for attempt_id in posting.attempt_ids}
        if attempt_ids:
            named = {"of_project": project_id, "attempt_ids": list(attempt_ids)}
            for row in connection.execute(self._load_holds, named):
                hold = hold_of(row)
                books.holds[hold.attempt_id] = hold
        keys = {key for posting in postings for key in posting.event_keys}
        settled = (hold for hold in books.holds.values() if hold.state is HoldState.SETTLED)
        keys.update((SETTLED_SOURCE, hold.attempt_id) for hold in settled)
        # Of an attempt without a hold there can be the event: holds are deleted after a while, events are not.
        without_hold = attempt_ids - books.holds.keys()
        keys.update((SETTLED_SOURCE, attempt_id) for attempt_id in without_hold)
        self._load_events(connection, books, keys)
        for attempt_id in without_hold:
            event = books.events.get((SETTLED_SOURCE, attempt_id))
            if event is not None:
                books.holds[attempt_id] = hold_of_event(event)
        books.standings = self._standings(connection, books, locked, postings)
        prices = self._prices.of_project(connection, project_id, locked.prices_revision)
        return Ledger(books, prices, locked.now_us)

    def _load_events(self, connection: Connection, books: Books, keys: set[EventKey]) -> None:
        for source, group in groupby(sorted(keys), key=lambda key: key[0]):
            event_ids = [event_id for _, event_id in group]
            named = {"project_id": books.project_id, "source": source, "event_ids": event_ids}
            for row in connection.execute(self._load_source, named).mappings():
                event = event_of(row)
                books.events[source, event.event_id] = event

    def _standings(
        self, connection: Connection, books: Books, locked: LockedProject, postings: Sequence[Posting[Any]]
    ) -> Standings:
        """The balances that the postings can change, filled."""
        if not locked.budgets_revision:
            return Standings()
        # Periods are looked up for times that can be; what names another is refused when it is applied.
        charges = {
            (target, locked.now_us if at_us is None else at_us)
            for posting in postings
            for target, at_us in posting.charges
            if at_us is None or is_acceptable(at_us, locked.now_us)
        }
        charges.update((hold.target, hold.created_us) for hold in books.holds.values() if hold.state in UNRESOLVED)
        anchors = {anchor for target, _ in charges for anchor in anchors_of(target)}
        standings = Standings(self._budgets.at_anchors(connection, books.project_id, locked.budgets_revision, anchors))
        for target, at_us in charges:
            standings.at(target, at_us)
        standings.seal()
        budget_ids = {balance.budget.budget_id for balance in standings}
        if budget_ids:
            periods = {balance.period.key for balance in standings}
            kept = {"budget_ids": list(budget_ids), "periods": list(periods)}
            for budget_id, period, settled, held in connection.execute(self._load_balances, kept):
                standings.fill((budget_id, period), settled_nano_usd=settled, held_nano_usd=held)
        return standings

    def _save(self, connection: Connection, locked: LockedProject, ledger: Ledger) -> None:
        books, project_id = ledger.books, ledger.books.project_id
        if ledger.new_holds:
            rows = [row_of_hold(project_id, hold) for hold in ledger.new_holds.values()]
            self._database.insert_rows(connection, holds, rows)
        by_state: dict[HoldState, list[str]] = {}
        for hold in ledger.changed_holds.values():
            by_state.setdefault(hold.state, []).append(hold.attempt_id)
        for state, attempt_ids in by_state.items():
            moved = {"of_project": project_id, "attempt_ids": attempt_ids, "new_state": state.value}
            connection.execute(self._move_holds, moved)
        if ledger.changed_balances:
            rows = [
                {
                    "budget_id": budget_id,
                    "period": period,
                    "settled_nano_usd": books.standings[budget_id, period].settled_nano_usd,
                    "held_nano_usd": books.standings[budget_id, period].held_nano_usd,
                }
                for budget_id, period in sorted(ledger.changed_balances)
            ]
            self._database.insert_rows(connection, balances, rows, on_conflict=_PUT_BALANCE)
        last = locked.event_sequence + len(ledger.new_events)
        if ledger.new_holds or ledger.changed_holds or ledger.new_events:
            set_totals(connection, project_id, held_nano_usd=books.held_nano_usd, event_sequence=last)
        if ledger.new_events:
            rows = [row_of_event(project_id, event) for event in ledger.new_events]
            append_events(connection, self._database, project_id, last, rows)
