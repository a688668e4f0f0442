from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.orchestrator_rpc import Client, serving


@pytest.fixture
async def client(tmp_path: Path, sqlite_url: str) -> AsyncIterator[Client]:
    async with serving(tmp_path, database_url=sqlite_url) as client:
        yield client
