"""The `llmlab` command as a process, as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import TESTS

ROOT = TESTS.parent
TIMEOUT_S = 100.0


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


def command_environ(home: Path, **environ: str) -> dict[str, str]:
    """The environment of a command: nothing of llmlab's from outside, a wide screen, the given variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    # Coverage of child processes is measured through COVERAGE_PROCESS_START, which is inherited.
    return {**inherited, "LLMLAB_HOME": str(home), "COLUMNS": "200", "PYTHONPATH": str(ROOT), **environ}
