"""`python -m tests.support.holder URL SCHEMA NAME`: holds a liveness name until its standard input ends."""

from __future__ import annotations

import asyncio
import sys

from services.runtime.database import Database
from services.runtime.liveness import liveness_of


async def hold(url: str, schema: str, name: str) -> None:
    """Hold `name`, say so, and wait to be ended or killed."""
    async with Database.open(url, schema=schema) as database, liveness_of(database).hold(name):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(hold(*sys.argv[1:4]))
