"""`python -m services.gateway`."""

from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from services.runtime.process import run_service

if __name__ == "__main__":
    raise SystemExit(run_service("gateway", GatewaySettings, build))
