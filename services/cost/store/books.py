"""Loading and saving the books of projects: the one transaction of the group commit.

A flush runs as many statements for one request as for a thousand, and locks each project once, in the order of the ids.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, groupby, islice
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from services.cost.events import SETTLED_SOURCE
from services.cost.holds import UNRESOLVED, HoldState, hold_of_event
from services.cost.ledger import Books, EventKey, Ledger, is_acceptable
from services.cost.posting import Posting
from services.cost.pricing.catalogue import PriceSource
from services.cost.scopes import anchors_of
from services.cost.standings import BalanceKey, Standings
from services.cost.store.alert_writer import AlertKey, AlertWriter
from services.cost.store.budget_books import BudgetBooks
from services.cost.store.events import append_events
from services.cost.store.price_books import PriceBooks
from services.cost.store.projects import LockedProject, lock_and_ask, set_totals
from services.cost.store.rows import event_of, hold_of, row_of_event, row_of_hold
from services.cost.store.tables import LIVE, balances, holds, usage_events
from services.runtime.database import Database
from services.runtime.errors import DomainError
from services.runtime.exchange import Answer, Exchange, Question

_PUT_BALANCE: Final = (
    "(budget_id, period) DO UPDATE SET"
    " settled_nano_usd = excluded.settled_nano_usd, held_nano_usd = excluded.held_nano_usd"
)
RECENT_MAX: Final = 64
"""Balances of a project that are asked for before it is known whether they are needed."""
PROJECTS_RECENT_MAX: Final = 1_000
"""Projects of which such are remembered; one more makes the keeper forget them all and begin again."""
Amounts = tuple[int, int]
"""Settled and held, nano-USD."""
_EVENT_COLUMNS: Final = tuple(usage_events.c.keys())


class BookKeeper:
    """Runs postings on the books of their projects."""

    def __init__(self, database: Database, prices: PriceSource, alerts: AlertWriter) -> None:
        self._database = database
        self._prices = PriceBooks(prices)
        self._budgets = BudgetBooks(database)
        self._alerts = alerts
        self._recent: dict[str, Sequence[BalanceKey]] = {}
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

    async def post(self, postings: Sequence[Posting[Any]], pass_on: Callable[[], None]) -> list[Any]:
        """Run the postings in one transaction; each gives its result, or the DomainError that it raised.

        Calls `pass_on` once the next transaction may begin: it will wait for this one's locks, and find what it wrote.
        """
        in_order = partial(asyncio.get_running_loop().call_soon_threadsafe, pass_on)
        results, raised = await self._database.exchange(self._post, postings, in_order)
        self.committed(raised)
        return results

    def _post(
        self, exchange: Exchange, postings: Sequence[Posting[Any]], in_order: Callable[[], object]
    ) -> tuple[list[Any], list[AlertKey]]:
        results, raised = self.post_within(exchange, postings)
        if not raised:
            # Whoever watches alerts must see none that a crash of the database takes back.
            exchange.unlock_early()
        in_order()
        return results, raised

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

    def post_within(self, exchange: Exchange, postings: Sequence[Posting[Any]]) -> tuple[list[Any], list[AlertKey]]:
        """As `post`, within a transaction that is open; the alerts that it raises are for `committed`."""
        results: list[Any] = [None] * len(postings)
        raised: list[AlertKey] = []
        ordered = sorted(range(len(postings)), key=lambda index: postings[index].project_id)
        for project_id, indexes in groupby(ordered, key=lambda index: postings[index].project_id):
            of_project = list(indexes)
            locked, ledger = self._open(exchange, project_id, [postings[index] for index in of_project])
            for index in of_project:
                try:
                    results[index] = postings[index].apply(ledger)
                except DomainError as refusal:
                    results[index] = refusal
            self._save(exchange, locked, ledger)
            drafts = ledger.alerts()
            if drafts:
                raised += self._alerts.raise_new(exchange.connection, project_id, drafts, ledger.now_us)
        return results, raised

    def _open(
        self, exchange: Exchange, project_id: str, postings: Sequence[Posting[Any]]
    ) -> tuple[LockedProject, Ledger]:
        """Lock the project, and load what the postings touch."""
        attempt_ids = {attempt_id for posting in postings for attempt_id in posting.attempt_ids}
        # Of an attempt without a hold there can be the event: holds are deleted after a while, events are not.
        likely = {key for posting in postings for key in posting.event_keys}
        likely.update((SETTLED_SOURCE, new) for posting in postings if posting.charges for new in posting.attempt_ids)
        of_holds = []
        if attempt_ids:
            named = {"of_project": project_id, "attempt_ids": list(attempt_ids)}
            of_holds.append(Question(self._load_holds, named))
        recent = self._recent.get(project_id, ())
        of_balances = self._of_balances(recent)
        of_events = self._of_events(project_id, likely)
        locked, answers = lock_and_ask(exchange, self._database, project_id, *of_holds, *of_balances, *of_events)
        books = Books(project_id, held_nano_usd=locked.held_nano_usd)
        found = iter(answers)
        for row in chain(*islice(found, len(of_holds))):
            hold = hold_of(row)
            books.holds[hold.attempt_id] = hold
        known = {**dict.fromkeys(recent, (0, 0)), **_amounts(islice(found, len(of_balances)))}
        _put_events(books, found)
        keys = {(SETTLED_SOURCE, one.attempt_id) for one in books.holds.values() if one.state is HoldState.SETTLED}
        without_hold = attempt_ids - books.holds.keys()
        keys.update((SETTLED_SOURCE, attempt_id) for attempt_id in without_hold)
        if keys - likely:
            _put_events(books, exchange.ask(*self._of_events(project_id, keys - likely)))
        for attempt_id in without_hold:
            event = books.events.get((SETTLED_SOURCE, attempt_id))
            if event is not None:
                books.holds[attempt_id] = hold_of_event(event)
        books.standings = self._standings(exchange, books, locked, postings, known)
        prices = self._prices.of_project(exchange.connection, project_id, locked.prices_revision)
        return locked, Ledger(books, prices, locked.now_us)

    def _of_balances(self, keys: Collection[BalanceKey]) -> list[Question]:
        """What asks for balances, by one question or none."""
        if not keys:
            return []
        named = {"budget_ids": list({key[0] for key in keys}), "periods": list({key[1] for key in keys})}
        return [Question(self._load_balances, named)]

    def _remember(self, project_id: str, used: Sequence[BalanceKey]) -> None:
        """The balances that a project's next transaction asks for while it takes the lock, before it knows which."""
        if len(used) > RECENT_MAX:
            # Of so many others the next will touch others again.
            self._recent.pop(project_id, None)
            return
        if len(self._recent) >= PROJECTS_RECENT_MAX and project_id not in self._recent:
            self._recent.clear()
        latest_first = dict.fromkeys((*used, *self._recent.get(project_id, ())))
        self._recent[project_id] = tuple(islice(latest_first, RECENT_MAX))

    def _of_events(self, project_id: str, keys: set[EventKey]) -> list[Question]:
        """What asks for events, by one question a source."""
        by_source: dict[str, list[str]] = {}
        for source, event_id in keys:
            by_source.setdefault(source, []).append(event_id)
        return [
            Question(self._load_source, {"project_id": project_id, "source": source, "event_ids": event_ids})
            for source, event_ids in by_source.items()
        ]

    def _standings(
        self,
        exchange: Exchange,
        books: Books,
        locked: LockedProject,
        postings: Sequence[Posting[Any]],
        known: Mapping[BalanceKey, Amounts],
    ) -> Standings:
        """The balances that the postings can change, filled with what is known or is asked for."""
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
        revision = locked.budgets_revision
        standings = Standings(self._budgets.at_anchors(exchange.connection, books.project_id, revision, anchors))
        for target, at_us in charges:
            standings.at(target, at_us)
        standings.seal()
        used = [(balance.budget.budget_id, balance.period.key) for balance in standings]
        if not known.keys() >= set(used):
            known = _amounts(exchange.ask(*self._of_balances(used)))
        for key in used:
            settled, held = known.get(key, (0, 0))
            standings.fill(key, settled_nano_usd=settled, held_nano_usd=held)
        self._remember(books.project_id, used)
        return standings

    def _save(self, exchange: Exchange, locked: LockedProject, ledger: Ledger) -> None:
        books, project_id = ledger.books, ledger.books.project_id
        if ledger.new_holds:
            rows = [row_of_hold(project_id, hold) for hold in ledger.new_holds.values()]
            exchange.insert_rows(holds, rows)
        by_state: dict[HoldState, list[str]] = {}
        for hold in ledger.changed_holds.values():
            by_state.setdefault(hold.state, []).append(hold.attempt_id)
        for state, attempt_ids in by_state.items():
            moved = {"of_project": project_id, "attempt_ids": attempt_ids, "new_state": state.value}
            exchange.tell(self._move_holds, moved)
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
            exchange.insert_rows(balances, rows, on_conflict=_PUT_BALANCE)
        last = locked.event_sequence + len(ledger.new_events)
        if ledger.new_holds or ledger.changed_holds or ledger.new_events:
            set_totals(exchange, project_id, held_nano_usd=books.held_nano_usd, event_sequence=last)
        if ledger.new_events:
            rows = [row_of_event(project_id, event) for event in ledger.new_events]
            append_events(exchange, self._database, project_id, last, rows)


def _amounts(answers: Iterable[Answer]) -> dict[BalanceKey, Amounts]:
    return {(budget_id, period): (settled, held) for budget_id, period, settled, held in chain(*answers)}


def _put_events(books: Books, answers: Iterable[Answer]) -> None:
    for row in chain(*answers):
        event = event_of(dict(zip(_EVENT_COLUMNS, row, strict=True)))
        books.events[event.source, event.event_id] = event
