"""`python -m services.orchestrator`; with `worker`, its workers alone: they execute runs and serve no API."""

import os
import sys

from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.wiring import build
from services.runtime.process import EXIT_SETTINGS, run_service


def main() -> int:
    """Runs the service, or workers; returns the exit status."""
    match sys.argv[1:]:
        case [] | ["-h" | "--help"]:
            pass
        case ["worker"] | ["worker", "-h" | "--help"]:
            os.environ.setdefault(OrchestratorSettings.variable("api"), "false")
        case arguments:
            sys.stderr.write(f"orchestrator: {arguments[0]!r} is not known; it takes nothing, or: worker\n")
            return EXIT_SETTINGS
    return run_service("orchestrator", OrchestratorSettings, build)


raise SystemExit(main())
