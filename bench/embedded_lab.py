"""All services in this process, on SQLite, with a client: what benchmarks of whole runs have in common."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from llmlab.cli.embedded import start_services
from llmlab.client import Client, Endpoints, find_credentials


@asynccontextmanager
async def lab(home: Path | None = None) -> AsyncIterator[tuple[Client, Endpoints, str]]:
    """Services on a home, or on one that is gone at the end, with a client, their addresses and the API key."""
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        chosen = home or Path(folder)
        async with start_services(chosen, fixed_ports=False) as endpoints:
            _, api_key = find_credentials(chosen, {})
            async with Client(endpoints, api_key=api_key or "") as client:
                yield client, endpoints, api_key or ""
