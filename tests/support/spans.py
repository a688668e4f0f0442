"""Spans that services have written to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def spans_of(file: Path) -> list[dict[str, Any]]:
    """The spans of a file, in the order in which they ended."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def way(spans: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The name of each span with that of the one it lies below; that of one elsewhere is empty. As they began."""
    names = {span["span_id"]: span["name"] for span in spans}
    began = sorted(spans, key=lambda span: span["start_us"])
    return [(span["name"], names.get(span["parent_span_id"], "")) for span in began]
