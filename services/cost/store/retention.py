"""Deletes holds whose outcome is final, once nobody can ask for them any more."""

from typing import Any

from sqlalchemy import Connection, Select, TextClause, bindparam, delete, select, tuple_

from services.cost.ledger import LATE_MAX_US
from services.cost.store.tables import EXPIRED, FINAL, holds
from services.runtime.database import Database
from services.runtime.dialects import picked_once

_KEY = (holds.c.project_id, holds.c.attempt_id)


def _oldest(states: TextClause) -> Select[Any]:
    """The oldest holds in states that have a partial index of their own."""
    return (
        select(*_KEY)
        .where(states, holds.c.created_us < bindparam("before_us"))
        .order_by(holds.c.created_us)
        .limit(bindparam("max_holds"))
        # Replicas delete different holds, and wait for no transaction that resolves one.
        .with_for_update(skip_locked=True)
    )


_OLDEST_FINAL = _oldest(FINAL)
_OLDEST_EXPIRED = _oldest(EXPIRED)


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
        return await self._database.write(self.delete_old, limit)

    def delete_old(self, connection: Connection, limit: int) -> int:
        """The same within a transaction."""
        now_us = self._database.now_us(connection)
        deleted = 0
        for oldest, keep_us in ((_OLDEST_FINAL, self._keep_us), (_OLDEST_EXPIRED, LATE_MAX_US)):
            statement = delete(holds).where(tuple_(*_KEY).in_(picked_once(connection, oldest)))
            due = {"before_us": now_us - keep_us, "max_holds": limit - deleted}
            done = connection.execute(statement, due, execution_options={"preserve_rowcount": True})
            deleted += done.rowcount
        return deleted
