from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.orchestrator.store import SqlLedger
from services.runtime.database import Database
from services.runtime.hints import LocalHints
from tests.support.orchestrator import World, WorldIdentity
from tests.support.orchestrator_lab import Lab
from tests.support.orchestrator_rpc import Client, serving


@pytest.fixture
async def client(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Client]:
    async with serving(tmp_path, database_url=sqlite_url) as client:
        yield client


@pytest.fixture
async def lab(database_url: str, tmp_path: Path) -> AsyncIterator[Lab]:
    async with Database.open(
        database_url, schema="orchestrator", migrations="services.orchestrator.migrations"
    ) as database:
        yield Lab(database, SqlLedger(database), World(), LocalHints(), WorldIdentity())
