"""`python -m services.orchestrator`."""

from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.wiring import build
from services.runtime.process import run_service

raise SystemExit(run_service("orchestrator", OrchestratorSettings, build))
