"""Makes `.env.example` from the services' settings classes: every variable with its meaning and default.

A shared setting is read from LLMLAB_<FIELD> by every service; LLMLAB_<SERVICE>_<FIELD> sets it for one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from pydantic.fields import FieldInfo

from services.runtime.settings import ENVIRONMENT_PREFIX, ServiceSettings
from services.runtime.usage import default_text

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE_FILE = ROOT / ".env.example"
SERVICES = ("gateway", "orchestrator", "metrics", "cost", "identity")

_HEAD = """\
# Settings of the llmlab services, made from their settings classes by `make env-example`; never edited by hand.
# Copy this file to .env and uncomment what should differ from its default. A variable of the first part holds for every
# service; LLMLAB_<SERVICE>_<NAME> (for example LLMLAB_GATEWAY_PORT) holds for one and comes first.
"""


def settings_class(service: str) -> type[ServiceSettings]:
    """The settings class of a service: `services.gateway.settings.GatewaySettings`."""
    module = import_module(f"services.{service}.settings")
    found: type[ServiceSettings] = getattr(module, f"{service.capitalize()}Settings")
    return found


def render() -> str:
    """The text of `.env.example`."""
    parts = [_HEAD, _part("Every service", _lines(ENVIRONMENT_PREFIX, _fields(ServiceSettings, without={"port"})))]
    shared = ServiceSettings.model_fields
    for service in SERVICES:
        own = _fields(settings_class(service), without={name for name in shared if name != "port"})
        parts.append(_part(service.capitalize(), _lines(f"{ENVIRONMENT_PREFIX}{service.upper()}_", own)))
    return "\n".join(parts)


def _fields(settings: type[ServiceSettings], without: set[str]) -> dict[str, FieldInfo]:
    return {name: field for name, field in settings.model_fields.items() if name not in without}


def _part(title: str, lines: Iterator[str]) -> str:
    return "\n".join([f"# --- {title} ---", *lines, ""])


def _lines(prefix: str, fields: dict[str, FieldInfo]) -> Iterator[str]:
    for name, field in fields.items():
        if not field.description:
            raise SystemExit(f"{prefix}{name.upper()}: its Field has no description")
        yield f"# {' '.join(field.description.split())}"
        yield f"# {prefix}{name.upper()}={default_text(field)}"


def main() -> int:
    """Writes the file; returns the exit status."""
    EXAMPLE_FILE.write_text(render(), encoding="utf-8")
    print(f"wrote {EXAMPLE_FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
