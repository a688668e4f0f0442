"""Deletes holds whose outcome is final, once nobody can ask for them any more."""

from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, or_, select, tuple_

from services.cost.holds import HoldState
from services.cost.ledger import LATE_MAX_US
from services.cost.store.tables import holds
from services.runtime.database import Database

# The outcome of an expired hold can still come: these are kept for as long as a late settlement is taken.
_EXPIRED: Final = (HoldState.EXPIRED_CHARGED, HoldState.EXPIRED_RELEASED)
_FINAL: Final = (HoldState.SETTLED, HoldState.RELEASED, HoldState.TOMBSTONED)


class HoldRetention:
    """Deletes old holds. What was settled stays on record as its usage event, and answers a settlement sent again."""

    def __init__(self, database: Database, *, keep_us: int) -> None:
        """Keep what is final for so long after it was made, and expired holds for 366 days."""
        self._database = database
        self._keep_us = keep_us
        key = (holds.c.project_id, holds.c.attempt_id)
        due = (
            select(*key)
            .where(or_(_older(_FINAL, "final_before_us"), _older(_EXPIRED, "expired_before_us")))
            .limit(bindparam("max_holds"))
            # Replicas delete different holds, and wait for no transaction that resolves one.
            .with_for_update(skip_locked=True)
        )
        self._delete = delete(holds).where(tuple_(*key).in_(due))

    async def run_once(self, limit: int) -> int:
        """Delete at most `limit` holds; returns how many were."""
        return await self._database.write(self._delete_old, limit)

    def _delete_old(self, connection: Connection, limit: int) -> int:
        now_us = self._database.now_us(connection)
        before = {"final_before_us": now_us - self._keep_us, "expired_before_us": now_us - LATE_MAX_US}
        return connection.execute(
            self._delete, {**before, "max_holds": limit}, execution_options={"preserve_rowcount": True}
        ).rowcount


def _older(states: tuple[HoldState, ...], parameter: str) -> ColumnElement[bool]:
    return holds.c.state.in_([state.value for state in states]) & (holds.c.created_us < bindparam(parameter))
