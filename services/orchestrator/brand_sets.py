"""Brand sets: brands that several experiments look for, kept once by their content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from services.orchestrator.experiment import BrandTarget
from services.orchestrator.resources import Content


def brand_content(brands: Iterable[BrandTarget]) -> Content:
    """The content of brands in any order: they come by name, their texts sorted and without repetitions."""
    kept = sorted(map(_sorted, brands), key=lambda brand: brand.name)
    return Content.of([asdict(brand) for brand in kept])


def decode_brands(encoded: bytes) -> tuple[BrandTarget, ...]:
    """The brands of a content."""
    return tuple(brand_of(document) for document in json.loads(encoded))


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
