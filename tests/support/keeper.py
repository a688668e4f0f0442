"""`python -m tests.support.keeper KIND DIRECTORY PID`: runs one test server for as long as process PID lives."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer

SERVERS = {"postgres": PostgresServer, "redis": RedisServer}


def keep(kind: str, directory: Path, watched_pid: int) -> None:
    """Start the server, publish its URL in `<kind>.url`, and delete it on SIGTERM or when `watched_pid` has ended."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=_watch, args=(watched_pid, ended), daemon=True).start()
    server = SERVERS[kind](directory / kind)
    server.start()
    try:
        address = directory / f"{kind}.url"
        draft = address.with_suffix(".draft")
        draft.write_text(server.url)
        draft.rename(address)
        ended.wait()
    finally:
        server.delete()
        if not _lives(watched_pid):
            # Pytest was killed and cannot tidy up itself.
            shutil.rmtree(directory, ignore_errors=True)


def _watch(pid: int, ended: threading.Event) -> None:
    if hasattr(os, "pidfd_open"):
        import select

        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            ended.set()
            return
        select.select([handle], [], [])
    else:
        while _lives(pid):
            time.sleep(0.5)
    ended.set()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
