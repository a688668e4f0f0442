"""The scripted service as a process: `python -m tests.support.echo_service`."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime.auth import TokenVerifier
from services.runtime.errors import Unavailable
from services.runtime.process import run_service
from services.runtime.server import RunningServer, serve
from tests.support.echo import EchoServicer, EchoSettings


@asynccontextmanager
async def build(settings: EchoSettings) -> AsyncIterator[RunningServer]:
    """Says "closed" when all is closed."""
    if os.environ.get("ECHO_DATABASE") == "down":
        raise Unavailable("DEPENDENCY_UNAVAILABLE", "no database at postgresql://me:hush@db")
    verifier = TokenVerifier.from_settings(settings)
    async with serve(settings, [EchoServicer()], verifier=verifier) as server:
        yield server
    print("closed", flush=True)  # noqa: T201 (what the test waits for)


if __name__ == "__main__":
    sys.exit(run_service("echo", EchoSettings, build))
