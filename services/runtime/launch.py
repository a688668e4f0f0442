"""The image's entry point: `python -m services.runtime.launch COMMAND`.

gateway | orchestrator | metrics | cost | identity   one service
worker     the orchestrator's workers alone: they execute runs and answer nothing but health checks
migrate    brings the schema of every service up to date, and ends
owner      makes the owner's account where there is none, prints a new API key of theirs, and ends
health     ends with 0 when the process that listens on LLMLAB_HEALTH_PORT is ready, with 1 otherwise
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from types import FrameType

# Nothing else is imported here: containers run `health` every few seconds, and settings take half a second to load.

COMMANDS: dict[str, tuple[str, ...]] = {
    "gateway": ("services.gateway",),
    "orchestrator": ("services.orchestrator",),
    "metrics": ("services.metrics",),
    "cost": ("services.cost",),
    "identity": ("services.identity",),
    "worker": ("services.orchestrator", "worker"),
    "migrate": ("services.runtime.migrate_services",),
    "owner": ("services.identity.owner",),
    "health": ("services.runtime.health_command",),
}
"""The module that each command runs, and what it is told."""

ENVIRONMENT: dict[str, dict[str, str]] = {
    "orchestrator": {"LLMLAB_ORCHESTRATOR_WORKERS": "0"},
}
"""Settings that a command has where the environment does not say otherwise: who answers does not work."""


def main() -> int:
    """Runs the command, which ends the process with its own status; returns one where there is no such command."""
    # As process 1 of a container, a signal without a handler is ignored; the service installs its own once it serves.
    signal.signal(signal.SIGTERM, _end)
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in COMMANDS:
        sys.stderr.write(f"llmlab: {command!r} is not a command; there are {', '.join(COMMANDS)}\n")
        return 2
    for name, value in ENVIRONMENT.get(command, {}).items():
        os.environ.setdefault(name, value)
    module, *arguments = COMMANDS[command]
    sys.argv[1:2] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main())
