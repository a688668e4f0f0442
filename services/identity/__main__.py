"""python -m services.identity."""

from services.identity.settings import IdentitySettings
from services.identity.wiring import build
from services.runtime.process import run_service

if __name__ == "__main__":
    raise SystemExit(run_service("identity", IdentitySettings, build))
