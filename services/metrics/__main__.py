"""python -m services.metrics."""

from services.metrics.settings import MetricsSettings
from services.metrics.wiring import build
from services.runtime.process import run_service

if __name__ == "__main__":
    raise SystemExit(run_service("metrics", MetricsSettings, build))
