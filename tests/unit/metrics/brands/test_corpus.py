"""Precision and recall of detection on texts that are made to mislead it."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.metrics.brands.brand_set import Brand
from services.metrics.brands.detection import Detector, detector_of

CATEGORIES = (
    "substrings possessives hyphens dotted_names nested_aliases homographs markdown links emoji turkish_i sharp_s cjk "
    "thai right_to_left"
).split()
CASES_PER_CATEGORY_MIN = 20
CASES_MIN = 300


@cache
def corpus() -> dict[str, Any]:
    text = Path(__file__).with_name("detection_corpus.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def brand_of(entry: str | dict[str, Any]) -> Brand:
    if isinstance(entry, str):
        return Brand(entry)
    return Brand(
        entry["name"],
        tuple(entry.get("aliases", ())),
        tuple(entry.get("excluded_contexts", ())),
        tuple(entry.get("domains", ())),
    )


def unmark(marked: str) -> tuple[str, set[tuple[int, int]]]:
    """The text without its marks, and the spans that they stood around."""
    text = ""
    spans = set()
    for piece in marked.split("⟦"):
        inside, found, rest = piece.partition("⟧")
        if found:
            spans.add((len(text), len(text) + len(inside)))
        text += inside + rest
    return text, spans


def detect(detector: Detector, text: str) -> set[tuple[int, int]]:
    return {(mention.start, mention.end) for mention in detector.detect(text).mentions}


def detector_for(category: str) -> Detector:
    return detector_of(tuple(map(brand_of, corpus()[category]["brands"])))


@pytest.mark.parametrize(
    ("category", "marked"), [(name, case) for name in CATEGORIES for case in corpus()[name]["cases"]]
)
def test_case(category: str, marked: str) -> None:
    text, wanted = unmark(marked)
    assert detect(detector_for(category), text) == wanted, text


def test_precision_and_recall(capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    totals = [0, 0, 0]
    for category in CATEGORIES:
        counts = [0, 0, 0]  # found and wanted, found, wanted
        for marked in corpus()[category]["cases"]:
            text, wanted = unmark(marked)
            found = detect(detector_for(category), text)
            counts = [counts[0] + len(found & wanted), counts[1] + len(found), counts[2] + len(wanted)]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        lines.append(_line(category, len(corpus()[category]["cases"]), counts))
    cases = [len(corpus()[category]["cases"]) for category in CATEGORIES]
    lines.append(_line("all", sum(cases), totals))
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))
    assert min(cases) >= CASES_PER_CATEGORY_MIN
    assert sum(cases) >= CASES_MIN
    assert totals[0] / totals[1] >= 0.98
    assert totals[0] / totals[2] >= 0.98


def _line(category: str, cases: int, counts: list[int]) -> str:
    right, found, wanted = counts
    return f"{category:15s} {cases:4d} cases  precision {right / found:.3f}  recall {right / wanted:.3f}"
