"""Brand sets: brands that several experiments look for, kept once by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.orchestrator.experiment import BrandTarget


@dataclass(frozen=True, slots=True)
class BrandSetRecord:
    """A brand set without its brands, of which there are `brand_count`. Times are microseconds UTC."""

    brand_set_id: str
    project_id: str
    name: str
    content_hash: str
    brand_count: int
    created_us: int
    updated_us: int


@dataclass(frozen=True, slots=True)
class BrandSetContent:
    """The brands of a set in the one form in which they are kept; equal brands have equal hashes."""

    brands: tuple[BrandTarget, ...]
    encoded: bytes
    content_hash: str

    @classmethod
    def of(cls, brands: Iterable[BrandTarget]) -> BrandSetContent:
        """The content of brands in any order: they come by name, their texts sorted and without repetitions."""
        kept = tuple(sorted(map(_sorted, brands), key=lambda brand: brand.name))
        encoded = encode_brands(kept)
        return cls(kept, encoded, hashlib.sha256(encoded).hexdigest())


def encode_brands(brands: Sequence[BrandTarget]) -> bytes:
    """The canonical JSON of brands, in their order."""
    documents = [asdict(brand) for brand in brands]
    return json.dumps(documents, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode_brands(data: bytes) -> tuple[BrandTarget, ...]:
    """The inverse of `encode_brands`."""
    return tuple(brand_of(document) for document in json.loads(data))


def brand_of(document: Mapping[str, Any]) -> BrandTarget:
    """A brand from its JSON form."""
    return BrandTarget(
        document["name"],
        tuple(document["aliases"]),
        tuple(document["excluded_contexts"]),
        tuple(document["domains"]),
    )


def _sorted(brand: BrandTarget) -> BrandTarget:
    return BrandTarget(brand.name, *map(_distinct, (brand.aliases, brand.excluded_contexts, brand.domains)))


def _distinct(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts)))
