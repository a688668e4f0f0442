"""Resources: what a project keeps under a name for several experiments, once by its content.

Experiments take copies, so changing or deleting a resource changes no experiment and no run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind of resources in words: what one is called, what it is made of, and how its ids begin."""

    noun: str
    parts: str
    prefix: str


BRAND_SET = ResourceKind("brand set", "brands", "bset")
PROMPT = ResourceKind("prompt", "messages", "prm")
DATASET = ResourceKind("dataset", "rows", "dset")


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """A resource without its content, which has so many `parts`. Times are microseconds UTC."""

    resource_id: str
    project_id: str
    name: str
    content_hash: str
    parts: int
    created_us: int
    updated_us: int


@dataclass(frozen=True, slots=True)
class Content:
    """Content in the one form in which it is kept; equal contents have equal hashes."""

    encoded: bytes
    content_hash: str
    parts: int

    @classmethod
    def of(cls, parts: list[Any]) -> Content:
        """The content of plain JSON values."""
        encoded = canonical(parts)
        return cls(encoded, hashlib.sha256(encoded).hexdigest(), len(parts))


def canonical(document: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8, integers and floats kept apart."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
