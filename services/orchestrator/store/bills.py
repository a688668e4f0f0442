"""Open bills: whose turn it is to be asked about."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, exists, select

from services.orchestrator.ledger import SweptBill
from services.orchestrator.store import tables as t
from services.orchestrator.store.rows import open_bill_of
from services.orchestrator.store.statements import POSTPONE_BILL
from services.runtime.database import Database

_AGE_SHARE = 4
"""A bill is asked about again when it has become older by one part of so many."""

_ANY_DUE = select(exists(select(t.open_bills.c.cell).where(t.open_bills.c.ask_at_us <= bindparam("now_us"))))
_DUE = (
    select(t.open_bills, t.runs.c.project_id)
    .join(t.runs, t.runs.c.run_id == t.open_bills.c.run_id)
    .where(t.open_bills.c.ask_at_us <= bindparam("now_us"), t.open_bills.c.created_us <= bindparam("created_us"))
    .order_by(t.open_bills.c.ask_at_us)
    .limit(bindparam("limit"))
    .with_for_update(of=t.open_bills, skip_locked=True)
)


def any_due(connection: Connection, database: Database) -> bool:
    """Whether it may be some bill's turn."""
    return bool(connection.execute(_ANY_DUE, {"now_us": database.now_us(connection)}).scalar_one())


def take_bills(connection: Connection, database: Database, rest_us: int, life_us: int, limit: int) -> list[SweptBill]:
    """Up to `limit` bills that are older than `rest_us` and whose turn it is; each has its next turn after a while.

    No two workers get the same at once. Those older than `life_us` are overdue.
    """
    now_us = database.now_us(connection)
    rows = connection.execute(_DUE, {"now_us": now_us, "created_us": now_us - rest_us, "limit": limit}).mappings()
    swept = [SweptBill(row["project_id"], open_bill_of(row), row["created_us"] <= now_us - life_us) for row in rows]
    turns = [
        {
            "of_run": bill.run_id,
            "of_cell": bill.cell,
            "of_attempt": bill.attempt,
            "next_us": now_us + max(rest_us, (now_us - bill.created_us) // _AGE_SHARE),
        }
        for _, bill, _ in swept
    ]
    if turns:
        connection.execute(POSTPONE_BILL, turns)
    return swept
