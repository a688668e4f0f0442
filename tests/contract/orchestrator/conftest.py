"""A ledger on each database, in a time that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.orchestrator.store import SqlLedger
from services.runtime.clock import ManualClock
from services.runtime.database import Database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(database_url: str, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(
        database_url, schema="orchestrator", migrations="services.orchestrator.migrations", clock=clock
    ) as opened:
        yield opened


@pytest.fixture
def ledger(database: Database) -> SqlLedger:
    return SqlLedger(database)
