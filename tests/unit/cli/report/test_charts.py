"""Axes, the frontier of quality and cost, and quantiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab.cli.report.charts import PlottedPoint, frontier, pareto_plot
from llmlab.cli.report.figures_of_run import quantile
from llmlab.cli.report.scales import Axis


def plotted(cost: float, quality: float) -> PlottedPoint:
    return PlottedPoint("1 model", "title", cost, quality, None, None)


@given(
    st.lists(st.just(0.0) | st.floats(1e-3, 1e12), min_size=1, max_size=20),
    st.booleans(),
)
def test_every_value_is_on_its_axis_and_ticks_are_few(values: list[float], may: bool) -> None:
    axis = Axis.around(values, may_be_logarithmic=may)
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in values)
    assert len(axis.ticks()) <= 6
    assert all(axis.low <= tick <= axis.high * (1 + 1e-9) for tick in axis.ticks())


@pytest.mark.parametrize(
    ("points", "lower_is_better", "best"),
    [
        ([(1, 0.5), (2, 0.7), (3, 0.6)], False, [(1, 0.5), (2, 0.7)]),
        ([(1, 0.5), (2, 0.7), (3, 0.3)], True, [(1, 0.5), (3, 0.3)]),
        ([(1, 0.5), (1, 0.6), (2, 0.6)], False, [(1, 0.6)]),
        ([(0, 0.5)], False, [(0, 0.5)]),
    ],
)
def test_the_frontier_is_what_nothing_beats_in_both(
    points: list[tuple[float, float]],
    lower_is_better: bool,
    best: list[tuple[float, float]],
) -> None:
    found = frontier([plotted(*point) for point in points], lower_is_better=lower_is_better)
    assert [(point.cost, point.quality) for point in found] == best


def test_a_plot_of_equal_points_and_of_free_ones_is_drawn() -> None:
    for points in ([(0.0, 0.5)], [(1.0, 0.5)] * 30, [(0.0, 0.1), (1e9, 0.9)]):
        plot = pareto_plot(
            [plotted(*point) for point in points], lower_is_better=False, cost_text=str, quality_name="quality"
        )
        assert len(plot.findall("g")) == len(points)


def test_quantiles_are_values_that_occur() -> None:
    ordered = list(range(1, 101))
    assert [quantile(ordered, share) for share in (0.5, 0.95, 1.0)] == [50, 95, 100]
    assert quantile([7], 0.95) == 7
