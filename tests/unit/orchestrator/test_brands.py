import pytest

from services.orchestrator import brands as module
from services.orchestrator.brands import (
    AnswerBrands,
    BrandSummary,
    Citation,
    CitedDomain,
    FoundBrand,
    Names,
    Places,
    places_among,
    same_places,
)
from services.orchestrator.calls import NO_MONEY, NO_TIMING, NO_USAGE
from services.orchestrator.product import Product
from services.orchestrator.records import ResultRecord
from services.orchestrator.states import CellStatus
from services.runtime.errors import ResourceExhausted

NAMES = Names(["A", "B"], ["p", "q"], ["m", "n"])
PRODUCT = Product(prompts=2, rows=1, models=2, points=1, repeats=1)
ANSWER = AnswerBrands((FoundBrand(1, 2, 1, 0, None),), (Citation("b.com", 1, 2),))


def record(cell: int, status: CellStatus = CellStatus.DONE) -> ResultRecord:
    timing = NO_TIMING
    return ResultRecord("run_1", cell, cell + 1, status, 1, 1, "STOP", "", NO_USAGE, NO_MONEY, timing, "", True, 1)


def test_answers_failures_and_answers_not_looked_through() -> None:
    summary = BrandSummary(PRODUCT, same_places(NAMES))
    summary.add(record(0), ANSWER)
    summary.add(record(1, CellStatus.FAILED), None)
    summary.add(record(2), None)
    summary.add(record(3), AnswerBrands((), (Citation("b.com", 1, 1), Citation("c.org", None, 5))))
    columns = summary.columns
    assert (columns.prompts, columns.models, columns.clusters) == ([0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1])
    assert columns.missing == [1, 2]
    assert columns.found == [(0, FoundBrand(1, 2, 1, 0, None))]
    assert summary.domains() == [CitedDomain("b.com", 1, 2, 3), CitedDomain("c.org", None, 1, 5)]


def test_a_run_is_compared_by_names() -> None:
    places = places_among(NAMES, Names(["B"], ["q", "p"], ["n"]))
    assert places == Places({1: 0}, {0: 1, 1: 0}, {1: 0})
    summary = BrandSummary(PRODUCT, places)
    summary.add(record(0), ANSWER)
    summary.add(record(1), ANSWER)
    assert (summary.columns.prompts, summary.columns.models) == ([1], [0])
    assert summary.columns.found == [(0, FoundBrand(0, 2, 1, 0, None))]


def test_a_summary_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWERS_MAX", 1)
    summary = BrandSummary(PRODUCT, same_places(NAMES))
    summary.add(record(0), None)
    with pytest.raises(ResourceExhausted):
        summary.add(record(1), None)
