"""A cost service as a process of its own, on a PostgreSQL or an SQLite of its own, for benchmarks and chaos runs.

Both can be killed and started again: the service keeps its port, the database keeps its files.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import grpc
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.cpu import cpu_s
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import call_metadata
from tools.local_servers import LocalServer, local_postgres, remove_sockets
from tools.processes import is_healthy

ROOT = Path(__file__).resolve().parent.parent
SERVICE_KEY = "5e" * 32
START_TIMEOUT_S = 60.0
POLL_S = 0.02

DatabaseKind = Literal["postgresql", "sqlite"]


@dataclass(slots=True)
class Postgres:
    """A durable PostgreSQL with its data in a directory."""

    server: LocalServer
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""

        def answers() -> bool:
            # After a crash it ends at once for as long as a process of before still holds its memory.
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(  # noqa: S603 (our own command)
                    self.server.command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    **self.server.options,
                )
            return self.server.answers()

        _wait_for("PostgreSQL", answers)

    def end(self, number: signal.Signals) -> None:
        """SIGINT ends its sessions, SIGQUIT is a crash: the next start recovers from the log."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None


@dataclass(slots=True)
class CostServer:
    """The service's process and its database."""

    home: Path
    postgres: Postgres | None
    settings: Mapping[str, str]
    """Settings of the service by their variables, beside those that this module makes."""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    minter: ServiceTokenMinter = field(
        default_factory=lambda: ServiceTokenMinter(
            "gateway", Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SERVICE_KEY))
        )
    )

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again on its port, and wait until it is healthy."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
        environ |= {
            "LLMLAB_HOME": str(self.home),
            "LLMLAB_COST_PORT": str(self.port),
            "LLMLAB_AUTH_SERVICE_KEY": SERVICE_KEY,
            "LLMLAB_DATABASE_URL": self.postgres.server.url if self.postgres else "",
            **self.settings,
        }
        with (self.home / "cost.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.cost"],
                env=environ,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().split()
        if not line:
            raise SystemExit(f"the cost service did not start:\n{(self.home / 'cost.log').read_text()[-2_000:]}")
        self.port = int(line[-1].rpartition(":")[2])
        _wait_for("the cost service", lambda: is_healthy(self.target))

    def kill(self) -> None:
        """Kill -9; nothing is tidied up."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def metadata(self, project_id: str, *permissions: str) -> tuple[tuple[str, str], ...]:
        """The credential of the gateway, or of somebody with permissions, for a project."""
        return call_metadata(self.minter.token(project_id, permissions=permissions or ("SERVICE",)))

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far: by the service, by PostgreSQL, and by this process, which is the client."""
        used = {"client": time.process_time()}
        if self.process is not None:
            used["service"] = cpu_s(psutil.Process(self.process.pid))
        if self.postgres is not None and self.postgres.process is not None:
            used["postgres"] = cpu_s(psutil.Process(self.postgres.process.pid))
        return used

    def channel(self) -> grpc.aio.Channel:
        """A channel that finds the service again soon after a restart."""
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        return grpc.aio.insecure_channel(self.target, options=options)


@asynccontextmanager
async def cost_server(
    kind: DatabaseKind, home: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[CostServer]:
    """Run the service on a fresh database in `home`; ends both."""
    postgres = Postgres(local_postgres(home)) if kind == "postgresql" else None
    server = CostServer(home, postgres, settings or {})
    try:
        if postgres is not None:
            await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(server.start)
        yield server
    finally:
        await asyncio.to_thread(server.kill)
        if postgres is not None:
            await asyncio.to_thread(postgres.end, signal.SIGINT)
            remove_sockets(home)


def _wait_for(name: str, answers: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while not answers():
        if time.monotonic() > give_up_at:
            raise SystemExit(f"{name} did not answer within {START_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
