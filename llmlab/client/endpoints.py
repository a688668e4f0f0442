"""Where the services are, and which key opens them."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICES = ("gateway", "orchestrator", "metrics", "cost", "identity")
DEFAULT_PORTS = {"gateway": 7410, "orchestrator": 7411, "metrics": 7412, "cost": 7413, "identity": 7414}
PROBE_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The gRPC target of each service, for example "127.0.0.1:7410" or "dns:///gateway.llmlab:7410"."""

    gateway: str = "127.0.0.1:7410"
    orchestrator: str = "127.0.0.1:7411"
    metrics: str = "127.0.0.1:7412"
    cost: str = "127.0.0.1:7413"
    identity: str = "127.0.0.1:7414"


def find_credentials(home: Path, environ: Mapping[str, str]) -> tuple[Endpoints | None, str | None]:
    """Finds running services and an API key.

    LLMLAB_<SERVICE>_TARGET and LLMLAB_API_KEY come first; `endpoints.json` and `credentials.json` in `home` (written by
    `llmlab up` and at the first start of identity) stand in for what the environment leaves out. Published services
    that have a home of their own, as those of `make up` have, are opened by the key in that home.

    Returns:
        The endpoints, or None where nothing is named or nothing listens there any more; the key, or None.
    """
    api_key = environ.get("LLMLAB_API_KEY") or _key_in(home)
    targets = {name: environ.get(f"LLMLAB_{name.upper()}_TARGET", "") for name in SERVICES}
    named = {name: target for name, target in targets.items() if target}
    if named:
        return Endpoints(**named), api_key
    content = _read_json(home / "endpoints.json")
    published = content.get("targets")
    if not isinstance(published, dict) or set(published) != set(SERVICES):
        return None, api_key
    if not _listens(published["identity"]):  # a process that was killed leaves its file behind
        return None, api_key
    return Endpoints(**published), environ.get("LLMLAB_API_KEY") or _key_in(Path(content.get("home") or home))


def _key_in(home: Path) -> str | None:
    key: str | None = _read_json(home / "credentials.json").get("api_key")
    return key


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _listens(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False
