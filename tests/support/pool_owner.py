"""`python -m tests.support.pool_owner`: owns a worker; prints its id for each line on standard input."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from services.runtime.pool import ProcessPool


def say(line: object) -> None:
    """Print a line that the test waits for."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def own() -> None:
    """Answer until standard input ends; SIGINT is only reported."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, say, "interrupted")
    async with ProcessPool.open(1) as pool:
        while await asyncio.to_thread(sys.stdin.readline):
            say(await pool.run(os.getpid))


if __name__ == "__main__":
    asyncio.run(own())
