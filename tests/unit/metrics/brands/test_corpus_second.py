"""Precision and recall on a second corpus, written without a look at the first or at the detector; with ordinals."""

import re
import sys
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.metrics.brands.brand_set import Brand
from services.metrics.brands.detection import detector_of
from tests.unit.metrics.brands.test_corpus import brand_of

ORDINALS = "list_ordinals"
MARK = re.compile("⟦(?P<surface>[^→⟧#]+)(?:→(?P<brand>[^⟧]+)|#(?P<ordinal>[0-9]+))?⟧")

Expected = tuple[str, int, int, int]
"""A brand's name, start, end and, in list_ordinals, the item."""


@cache
def corpus() -> dict[str, Any]:
    text = Path(__file__).with_name("detection_corpus_second.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def unmark(marked: str) -> tuple[str, Counter[Expected]]:
    """The text without its marks, and the mentions that they stood around."""
    text, position = "", 0
    expected: Counter[Expected] = Counter()
    for mark in MARK.finditer(marked):
        text += marked[position : mark.start()]
        brand = unicodedata.normalize("NFC", mark["brand"] or mark["surface"])
        expected[brand, len(text), len(text) + len(mark["surface"]), int(mark["ordinal"] or 0)] += 1
        text += mark["surface"]
        position = mark.end()
    return text + marked[position:], expected


def detect(brands: tuple[Brand, ...], text: str, *, ordinals: bool) -> Counter[Expected]:
    return Counter(
        (brands[mention.brand].name, mention.start, mention.end, mention.list_ordinal if ordinals else 0)
        for mention in detector_of(brands).detect(text).mentions
    )


@pytest.mark.parametrize("category", corpus()["categories"])
def test_category(category: str, capsys: pytest.CaptureFixture[str]) -> None:
    right = found = wanted = cases = 0
    wrong = []
    for name, marked_texts in corpus()["categories"][category].items():
        brands = tuple(map(brand_of, corpus()["sets"][name]))
        for marked in marked_texts:
            text, expected = unmark(marked)
            detected = detect(brands, text, ordinals=category == ORDINALS)
            right += (detected & expected).total()
            found += detected.total()
            wanted += expected.total()
            cases += 1
            if detected != expected:
                wrong.append((text, detected - expected, expected - detected))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{category:20s} {cases:3d} cases  precision {right / found:.3f}  recall {right / wanted:.3f}"
        )
    assert cases >= 20
    assert not wrong
