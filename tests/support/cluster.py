"""The five services as five processes, which tests kill and start again."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlab.client import Client, Endpoints, find_credentials
from tests.support.processes import TESTS, start_child
from tools.processes import is_healthy

# A service starts after those that it calls.
START_ORDER = ("identity", "cost", "metrics", "gateway", "orchestrator")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.02
ROOT = TESTS.parent


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Cluster:
    """Processes of the services, with their logs in `folder`."""

    folder: Path
    environ: dict[str, str]
    ports: dict[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """LLMLAB_HOME of all services."""
        return self.folder / "home"

    def client(self) -> Client:
        """A client of this cluster, with the owner's key."""
        _, api_key = find_credentials(self.home, {})
        assert api_key, "identity has not written the owner's key"
        return Client(Endpoints(**{name: f"127.0.0.1:{self.ports[name]}" for name in START_ORDER}), api_key=api_key)

    def start(self, name: str, **environ: str) -> None:
        """Starts a service and waits until it is healthy; `environ` is for this start only."""
        self.launch(name, **environ)
        self.wait_healthy(name)

    def launch(self, name: str, **environ: str) -> None:
        """Starts a service without waiting for it; "worker-1" is a process of the orchestrator's workers alone."""
        worker = name.startswith("worker-")
        arguments = ["services.orchestrator", "worker"] if worker else [f"services.{name}"]
        if worker:
            environ["LLMLAB_ORCHESTRATOR_PORT"] = str(self.ports[name])
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = start_child(
                [sys.executable, "-m", *arguments],
                on_parent_death=signal.SIGKILL,
                env={**self.environ, **environ},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_healthy(self, name: str) -> None:
        """Waits until a service reports SERVING; fails with its log where it ends or takes too long."""
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not is_healthy(f"127.0.0.1:{self.ports[name]}"):
            ended = self.processes[name].poll()
            assert ended is None, f"{name} ended with {ended}:\n{self.log(name)}"
            assert time.monotonic() < give_up_at, f"{name} is not healthy:\n{self.log(name)}"
            time.sleep(POLL_S)

    def kill(self, name: str) -> None:
        """Kills a service without warning (kill -9) and waits until it is gone."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(STOP_TIMEOUT_S)

    def wait_end(self, name: str) -> int:
        """Waits until a service ends by itself, as at a failpoint, and returns its exit status."""
        return self.processes.pop(name).wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """Stops all services in order, gently first."""
        for name in reversed(self.ports):
            process = self.processes.pop(name, None)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> str:
        """The end of a service's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]


@contextmanager
def cluster(
    folder: Path, *, database_url: str, redis_url: str, settings: Mapping[str, str], workers: int = 0
) -> Iterator[Cluster]:
    """All five services, healthy; stopped at the end.

    Args:
        folder: An empty folder for home and logs.
        database_url: A fresh PostgreSQL database; empty for SQLite files in the home.
        redis_url: A Redis; empty for none.
        settings: More environment variables.
        workers: Processes "worker-1" and so on beside them.
    """
    names = (*START_ORDER, *(f"worker-{number}" for number in range(1, workers + 1)))
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    environ |= {
        "LLMLAB_HOME": str(folder / "home"),
        "LLMLAB_DATABASE_URL": database_url,
        "LLMLAB_REDIS_URL": redis_url,
        "LLMLAB_AUTH_SERVICE_KEY": secrets.token_hex(32),
    }
    for name in START_ORDER:
        environ[f"LLMLAB_{name.upper()}_PORT"] = str(ports[name])
        environ[f"LLMLAB_{name.upper()}_TARGET"] = f"127.0.0.1:{ports[name]}"
    environ |= dict(settings)
    running = Cluster(folder, environ, ports)
    try:
        for name in names:
            running.start(name)
        yield running
    finally:
        running.stop()


@dataclass
class MockProvider:
    """The mock provider as a process of its own, with its call log."""

    base_url: str
    call_log: Path

    def calls(self) -> list[dict[str, Any]]:
        """Every call that it received, in order; written to disk before it answered.

        A line that is being written is no call yet: while the provider works, the log may end within one.
        """
        lines = self.call_log.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


@contextmanager
def mock_provider(folder: Path, **options: str) -> Iterator[MockProvider]:
    """Runs the mock provider's server until the block ends."""
    call_log = folder / "calls.jsonl"
    arguments = [argument for name, value in options.items() for argument in (f"--{name.replace('_', '-')}", value)]
    process = start_child(
        [sys.executable, "-m", "services.gateway.mockserver", "--port", "0", "--call-log", str(call_log), *arguments],
        on_parent_death=signal.SIGKILL,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        first_line = process.stdout.readline()
        assert first_line, "the mock provider ended while starting"
        yield MockProvider(json.loads(first_line)["base_url"], call_log)
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
        process.stdout.close()
