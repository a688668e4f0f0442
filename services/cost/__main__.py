"""python -m services.cost."""

from services.cost.settings import CostSettings
from services.cost.wiring import build
from services.runtime.process import run_service

raise SystemExit(run_service("cost", CostSettings, build))
