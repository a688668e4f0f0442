"""Deletes holds whose outcome is final, once nobody can ask for them any more."""

from sqlalchemy import Connection, Delete, TextClause, bindparam, delete, select, tuple_

from services.cost.ledger import LATE_MAX_US
from services.cost.store.tables import EXPIRED, FINAL, holds
from services.runtime.database import Database


def _delete_older(states: TextClause) -> Delete:
    """Deletes the oldest holds in states that have a partial index of their own."""
    key = (holds.c.project_id, holds.c.attempt_id)
    due = (
        select(*key)
        .where(states, holds.c.created_us < bindparam("before_us"))
        .order_by(holds.c.created_us)
        .limit(bindparam("max_holds"))
        # Replicas delete different holds, and wait for no transaction that resolves one.
        .with_for_update(skip_locked=True)
    )
    return delete(holds).where(tuple_(*key).in_(due))


_DELETE_FINAL = _delete_older(FINAL)
_DELETE_EXPIRED = _delete_older(EXPIRED)


class HoldRetention:
    """Deletes old holds. What was settled stays on record as its usage event, and answers a settlement sent again."""

    def __init__(self, database: Database, *, keep_us: int) -> None:
        """Keep what is final for so long after it was made.

        The outcome of an expired hold can still come: it is kept for as long as a late settlement is taken, 366 days.
        """
        self._database = database
        self._keep_us = keep_us

    async def run_once(self, limit: int) -> int:
        """Delete at most `limit` holds; returns how many were."""
        return await self._database.write(self._delete_old, limit)

    def _delete_old(self, connection: Connection, limit: int) -> int:
        now_us = self._database.now_us(connection)
        deleted = 0
        for statement, keep_us in ((_DELETE_FINAL, self._keep_us), (_DELETE_EXPIRED, LATE_MAX_US)):
            due = {"before_us": now_us - keep_us, "max_holds": limit - deleted}
            done = connection.execute(statement, due, execution_options={"preserve_rowcount": True})
            deleted += done.rowcount
        return deleted
