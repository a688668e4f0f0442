"""Brands have one form and one hash, whatever order they are written in."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.brand_sets import brand_content, decode_brands
from services.orchestrator.experiment import BrandTarget

texts = st.lists(st.text(max_size=4), max_size=3).map(tuple)
brands = st.lists(
    st.builds(BrandTarget, st.text(max_size=4), texts, texts, texts), max_size=5, unique_by=lambda b: b.name
)


@given(brands, st.randoms())
def test_order_and_repetitions_do_not_matter(given_brands: list[BrandTarget], chance: random.Random) -> None:
    content = brand_content(given_brands)
    shuffled = [
        BrandTarget(each.name, *(tuple(chance.sample(one * 2, len(one) * 2)) for one in _lists(each)))
        for each in chance.sample(given_brands, len(given_brands))
    ]
    assert brand_content(shuffled) == content
    kept = decode_brands(content.encoded)
    assert ([brand.name for brand in kept], content.parts) == (sorted(brand.name for brand in given_brands), len(kept))
    assert {brand.name: set(map(frozenset, _lists(brand))) for brand in kept} == {
        brand.name: set(map(frozenset, _lists(brand))) for brand in given_brands
    }


def test_other_brands_have_another_hash() -> None:
    contents = [
        BrandTarget("a"),
        BrandTarget("b"),
        BrandTarget("a", ("b",)),
        BrandTarget("a", (), ("b",)),
        BrandTarget("a", (), (), ("b",)),
    ]
    assert len({brand_content([brand]).content_hash for brand in contents}) == len(contents)


def _lists(brand: BrandTarget) -> tuple[tuple[str, ...], ...]:
    return brand.aliases, brand.excluded_contexts, brand.domains
