"""What a service says of itself with `--help`: its settings, since it takes nothing else."""

from __future__ import annotations

import json
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from services.runtime.settings import ServiceSettings


def usage(service: str, settings_class: type[ServiceSettings]) -> str:
    """How to start a service, and every variable that it reads, with its default and meaning."""
    lines = [
        f"usage: python -m services.{service}",
        "",
        "Serves until SIGTERM or SIGINT. It is told everything by these variables; one of all services is also read",
        "without the service's name, as LLMLAB_LOG_LEVEL is.",
        "",
    ]
    for name, field in settings_class.model_fields.items():
        lines.append(f"{settings_class.variable(name)}={default_text(field)}")
        lines.append(f"    {' '.join((field.description or '').split())}")
    return "\n".join([*lines, ""])


def default_text(field: FieldInfo) -> str:
    """The default as it would stand in the environment; empty where there is none, and for secrets."""
    default: Any = None if field.is_required() else field.get_default(call_default_factory=True)
    if default is None or isinstance(default, SecretStr):
        return ""
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, list | tuple | dict | set | frozenset):
        return json.dumps(sorted(default) if isinstance(default, set | frozenset) else default)
    return str(default)
