"""Numbers as people read them."""

from __future__ import annotations

import pytest

from llmlab.api.metrics.v1 import statistics_pb2
from llmlab.cli import figures


@pytest.mark.parametrize(
    ("microseconds", "text"), [(400, "0.4 ms"), (9_949, "9.9 ms"), (38_200, "38 ms"), (2_100_000, "2.1 s")]
)
def test_milliseconds(microseconds: float, text: str) -> None:
    assert figures.milliseconds(microseconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(8.2, "8 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_duration(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


def test_a_withheld_figure_is_a_dash_and_a_missing_interval_is_nothing() -> None:
    withheld = statistics_pb2.Estimate(withheld_reason="too few")
    assert (figures.value(withheld), figures.interval(withheld)) == ("-", "")
    known = statistics_pb2.Estimate(value=0.5, low=0.4, high=0.6)
    assert (figures.value(known), figures.interval(known)) == ("0.50", "0.40-0.60")


def test_a_quantile_is_found_by_its_level() -> None:
    known = [statistics_pb2.Estimate(quantile=0.5, value=1500), statistics_pb2.Estimate(quantile=0.95)]
    assert figures.quantile(known, 0.5) == "1.5 ms"
    assert figures.quantile(known, 0.95) == "-"
    assert figures.quantile([], 0.5) == "-"
