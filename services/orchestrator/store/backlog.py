"""How much unfinished runs still have to do, for whoever watches or scales the workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Connection, func, select

from services.orchestrator.states import CLAIMABLE
from services.orchestrator.store import tables as t
from services.runtime import telemetry
from services.runtime.database import Database
from services.runtime.errors import DomainError

_log = logging.getLogger(__name__)

_P = t.run_progress.c
_ENDED = _P.done + _P.failed + _P.unknown + _P.cancelled
_OPEN_CELLS = (
    select(func.coalesce(func.sum(t.runs.c.cells - _ENDED), 0))
    .join_from(t.run_progress, t.runs, _P.run_id == t.runs.c.run_id)
    .where(_P.status.in_(sorted(status.value for status in CLAIMABLE)))
)


def open_cells(connection: Connection) -> int:
    """Cells of unfinished runs that have no result yet."""
    return int(connection.execute(_OPEN_CELLS).scalar_one())


@asynccontextmanager
async def watched_backlog(database: Database, interval_s: float) -> AsyncIterator[None]:
    """Look every `interval_s` during the context, into the level `cells_open`. Every replica sees the same."""
    latest = 0

    async def look() -> None:
        nonlocal latest
        while True:
            try:
                latest = await database.read(open_cells)
            except DomainError as error:
                _log.debug("the backlog is not known: %s", error.message)
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(look(), name="backlog")
    try:
        with telemetry.gauge("cells_open", lambda: latest):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
