"""The recordings of real provider traffic beside the repository, read without the product's parsers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "provider-recordings"

# What an endpoint speaks, by the end of its path. Everything else does not fit the gateway's contract yet.
FORMATS = {
    "/chat/completions": "openai",
    "/v1/messages": "anthropic",
    "/responses": "responses",
    ":generateContent": "gemini",
    ":streamGenerateContent": "gemini",
}

_URI = re.compile(r"^ +uri: (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Recording:
    """One exchange with a provider."""

    name: str
    format: str
    path: str
    status: int
    headers: Mapping[str, str]
    request: Any
    body: bytes
    whole: Any = field(hash=False)
    """The body as JSON; None for an event stream."""


@cache
def recordings() -> tuple[Recording, ...]:
    """Every exchange in the folder; `format` is empty where it does not fit."""
    return tuple(recording for path in sorted(FOLDER.glob("**/*.yaml")) for recording in _exchanges(path))


def _exchanges(path: Path) -> list[Recording]:
    text = path.read_text(encoding="utf-8")
    paths = [urlparse(uri).path for uri in _URI.findall(text)]
    if not any(_format(one) for one in paths):
        # Parsing is most of the work; what does not fit is only counted.
        return [Recording(f"{path.relative_to(FOLDER).as_posix()}", "", one, 0, {}, None, b"", None) for one in paths]
    # CSafeLoader takes seconds where the pure loader takes minutes.
    loaded = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    found = []
    for index, exchange in enumerate(loaded["interactions"]):
        if "request" not in exchange:
            continue
        url = urlparse(exchange["request"]["uri"])
        response = exchange["response"]
        headers = {name.lower(): values[0] for name, values in response["headers"].items()}
        whole = response.get("parsed_body")
        sent = (response.get("body") or {}).get("string")
        body = json.dumps(whole).encode() if sent is None else sent.encode() if isinstance(sent, str) else sent
        if whole is None and headers.get("content-type", "").startswith("application/json"):
            whole = json.loads(body)
        found.append(
            Recording(
                name=f"{path.relative_to(FOLDER).as_posix()}[{index}]",
                format=_format(url.path),
                path=url.path,
                status=response["status"]["code"],
                headers=headers,
                request=exchange["request"].get("parsed_body"),
                body=body,
                whole=whole,
            )
        )
    return found


def _format(path: str) -> str:
    return next((kind for end, kind in FORMATS.items() if path.endswith(end)), "")
