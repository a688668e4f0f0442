"""The row of a project: the lock of whoever changes its books, and what the books begin with."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, select, update

from services.cost.store.tables import projects
from services.runtime.database import Database
from services.runtime.exchange import Answer, Exchange, Question

_EMPTY: Final = {"held_nano_usd": 0, "prices_revision": 0, "budgets_revision": 0, "event_sequence": 0}
_OWN: Final = projects.c.project_id == bindparam("of_project")
_SET_TOTALS: Final = (
    update(projects).where(_OWN).values(held_nano_usd=bindparam("held"), event_sequence=bindparam("last"))
)
_SET_BUDGETS_REVISION: Final = update(projects).where(_OWN).values(budgets_revision=bindparam("revision"))


class LockedProject(NamedTuple):
    """What a project's row says, and when it was locked."""

    held_nano_usd: int
    prices_revision: int
    """How often its overrides have changed; 0 while it has none."""
    budgets_revision: int
    """Another number after each change of its budgets; 0 while it never had one."""
    event_sequence: int
    """The number of its last usage event."""
    now_us: int
    """The database's clock, read after the wait for the lock."""


def lock_project(connection: Connection, database: Database, project_id: str) -> LockedProject:
    """Keep everyone else from changing the project until the transaction ends."""
    with database.exchange_within(connection) as exchange:
        locked, _ = lock_and_ask(exchange, database, project_id)
    return locked


def lock_and_ask(
    exchange: Exchange, database: Database, project_id: str, *questions: Question
) -> tuple[LockedProject, Sequence[Answer]]:
    """As `lock_project`, with the answers to questions that are asked under the lock."""
    lock = Question(_locking(database.clock), {"of_project": project_id})
    row, *answers = exchange.ask(lock, *questions)
    if not row:
        empty = {"project_id": project_id, **_EMPTY}
        exchange.insert_rows(projects, [empty], on_conflict="DO NOTHING")
        row, *answers = exchange.ask(lock, *questions)
    ((held_nano_usd, prices_revision, budgets_revision, event_sequence, server_us),) = row
    now_us = database.time_of(server_us)
    return LockedProject(held_nano_usd, prices_revision, budgets_revision, event_sequence, now_us), answers


def set_totals(exchange: Exchange, project_id: str, *, held_nano_usd: int, event_sequence: int) -> None:
    """Write what is held in a project that is locked, and the number of its last usage event."""
    exchange.tell(_SET_TOTALS, {"of_project": project_id, "held": held_nano_usd, "last": event_sequence})


def count_change_of_budgets(connection: Connection, project_id: str, locked: LockedProject) -> None:
    """Give the budgets of a project that is locked another revision.

    It is the time, so that no number comes twice with other budgets, even where a database lost its last commits.
    """
    revision = max(locked.now_us, locked.budgets_revision + 1)
    connection.execute(_SET_BUDGETS_REVISION, {"of_project": project_id, "revision": revision})


@cache
def _locking(clock: ColumnElement[int | None]) -> Select[Any]:
    columns = projects.c
    row = (
        select(columns.held_nano_usd, columns.prices_revision, columns.budgets_revision, columns.event_sequence)
        .where(_OWN)
        .with_for_update()
        # Its rows come out once they are locked, and only then is the clock read.
        .cte("locked")
    )
    return select(row, clock.label("server_us"))
