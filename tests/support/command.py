"""The `llmlab` command: as a process, as a person runs it, or inside the test's own, which is much faster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from llmlab.client import SERVICES
from tests.support.cluster import free_ports
from tests.support.processes import TESTS, start_child

ROOT = TESTS.parent
TIMEOUT_S = 100.0
START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Finished:
    """How a command ended and what it printed."""

    exit_code: int
    output: str
    notes: str

    def json(self) -> Any:
        """The one JSON document that it printed."""
        return json.loads(self.output)

    def json_lines(self) -> list[Any]:
        """The JSON documents that it printed, one a line."""
        return [json.loads(line) for line in self.output.splitlines()]


def llmlab(*arguments: str, home: Path, cwd: Path = ROOT, stdin: str = "", **environ: str) -> Finished:
    """Runs `llmlab` with arguments and waits for its end."""
    done = subprocess.run(
        [sys.executable, "-m", "llmlab.cli", *arguments],
        cwd=cwd,
        env=command_environ(home, **environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def typed(*arguments: str, home: Path, stdin: str = "", columns: int = 200, **environ: str) -> Finished:
    """Runs `llmlab` with arguments in this process, against services that `llmlab up` keeps running on `home`."""
    from llmlab.cli.app import console, notes  # not with this module: others that need a process load nothing of it
    from llmlab.cli.commands import app

    console.width = notes.width = columns
    # What may come from outside is taken away, as in `command_environ`.
    outside = {name: None for name in os.environ if name.startswith("LLMLAB_")}
    inside = {**outside, "LLMLAB_HOME": str(home), **environ}
    done = CliRunner().invoke(app, list(arguments), input=stdin, env=inside, catch_exceptions=False)
    return Finished(done.exit_code, done.stdout, done.stderr)


@contextmanager
def services_up(home: Path, **more: str) -> Iterator[dict[str, str]]:
    """Services that `llmlab up` runs on `home`, by name with their addresses, until the block ends.

    `more` is for their environment.
    """
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    environ = {f"LLMLAB_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    process = start_child(
        [sys.executable, "-m", "llmlab.cli", "up"],
        on_parent_death=signal.SIGKILL,
        cwd=ROOT,
        env=command_environ(home, **environ, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while not (home / "service.key").exists():
        assert process.poll() is None, process.stdout.read().decode() if process.stdout else ""
        assert time.monotonic() < give_up_at, "llmlab up has not begun"
        time.sleep(0.05)
    yield {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output.decode()
    assert not (home / "endpoints.json").exists()


def command_environ(home: Path, **environ: str) -> dict[str, str]:
    """The environment of a command: nothing of llmlab's from outside, a wide screen, the given variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    # Coverage of child processes is measured through COVERAGE_PROCESS_START, which is inherited.
    return {**inherited, "LLMLAB_HOME": str(home), "COLUMNS": "200", "PYTHONPATH": str(ROOT), **environ}
