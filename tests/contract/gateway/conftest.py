"""A Redis that goes away and comes back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis import RedisServer, redis_is_there


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may kill. Socket paths have to be short."""
    if not redis_is_there():
        pytest.skip("no Redis to start")
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder) / "redis")
        server.start()
        yield server
        server.delete()
