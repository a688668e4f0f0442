"""What unfinished runs still have to do, on both databases."""

from __future__ import annotations

import asyncio

from services.orchestrator.store import SqlLedger
from services.orchestrator.store.backlog import open_cells, watched_backlog
from services.runtime import telemetry
from services.runtime.database import Database
from tests.support.ledger import claim, result, sent, start, write


async def test_cells_without_a_result_are_counted_until_they_have_one(database: Database, ledger: SqlLedger) -> None:
    assert await database.read(open_cells) == 0
    await start(ledger, cells=10)
    await start(ledger, "run_2", cells=5)
    assert await database.read(open_cells) == 15
    (claimed, *_) = await claim(ledger)
    cell = claimed.shard.first_cell
    await write(ledger, *sent(claimed.shard, cell))
    await write(ledger, result(cell, run_id=claimed.shard.run_id))
    assert await database.read(open_cells) == 14
    async with watched_backlog(database, 0.001):
        while telemetry.snapshot()["cells_open"] != 14:  # noqa: ASYNC110 (nobody is told that it has looked)
            await asyncio.sleep(0)
    assert "cells_open" not in telemetry.snapshot()
