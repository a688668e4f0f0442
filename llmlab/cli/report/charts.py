"""The charts of the report, as SVG without a view box: places are percent, so that text keeps its size on a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple
from xml.etree.ElementTree import Element

from llmlab.api.metrics.v1 import statistics_pb2
from llmlab.cli.report.markup import add_tag, tag
from llmlab.cli.report.scales import Axis

_INTERVAL_WIDTH = 116
_INTERVAL_HEIGHT = 18
_BINS = 60
_ROW_HEIGHT = 46
_PARETO_HEIGHT = 380
_PARETO_TOP = 16
_PARETO_BOTTOM = 36
# For where a label may stand: the chart's width is not known, and this is what most screens give it.
_USUAL_WIDTH = 900
_LABEL_CHARACTER = 7.6
_LABEL_HEIGHT = 14.0


def interval_plot(figure: statistics_pb2.Estimate, axis: Axis) -> Element | None:
    """A mean as a dot on its interval; None where the mean is withheld."""
    if not figure.HasField("value"):
        return None

    def x(value: float) -> float:
        return round(4 + min(1.0, max(0.0, axis.share(value))) * (_INTERVAL_WIDTH - 8), 1)

    middle = _INTERVAL_HEIGHT / 2
    plot = tag("svg", class_="interval", width=_INTERVAL_WIDTH, height=_INTERVAL_HEIGHT, aria_hidden="true")
    add_tag(plot, "line", class_="track", x1=4, x2=_INTERVAL_WIDTH - 4, y1=middle, y2=middle)
    if figure.HasField("low") and figure.HasField("high"):
        add_tag(plot, "line", class_="whisker", x1=x(figure.low), x2=x(figure.high), y1=middle, y2=middle)
    add_tag(plot, "circle", class_="dot", cx=x(figure.value), cy=middle, r=4)
    return plot


def share_bar(share: float) -> Element:
    """A share of 0 - 1 as a bar."""
    bar = tag("svg", class_="bar", width=_INTERVAL_WIDTH, height=10, aria_hidden="true")
    add_tag(bar, "rect", class_="track", x=0, y=0, width=_INTERVAL_WIDTH, height=10, rx=2)
    add_tag(bar, "rect", class_="fill", x=0, y=0, width=round(share * _INTERVAL_WIDTH, 1), height=10, rx=2)
    return bar


class PlottedPoint(NamedTuple):
    """A point of the plot of quality against cost."""

    label: str
    title: str
    cost: float
    quality: float
    low: float | None
    high: float | None


def frontier(points: Sequence[PlottedPoint], *, lower_is_better: bool) -> list[PlottedPoint]:
    """The points that no other one beats in cost and quality at once, cheapest first."""
    sign = 1 if lower_is_better else -1
    best: list[PlottedPoint] = []
    for point in sorted(points, key=lambda each: (each.cost, sign * each.quality)):
        if not best or sign * point.quality < sign * best[-1].quality:
            best.append(point)
    return best


def pareto_plot(
    points: Sequence[PlottedPoint], *, lower_is_better: bool, cost_text: Callable[[float], str], quality_name: str
) -> Element:
    """Quality against cost: what is on the frontier is filled and joined by a line; whiskers are intervals."""
    across = Axis.around([point.cost for point in points])
    ends = [end for point in points for end in (point.quality, point.low, point.high) if end is not None]
    upward = Axis.around(ends, may_be_logarithmic=False)

    def y(value: float) -> float:
        share = upward.share(value)
        height = _PARETO_HEIGHT - _PARETO_TOP - _PARETO_BOTTOM
        return round(_PARETO_TOP + (share if lower_is_better else 1 - share) * height, 1)

    plot = tag("svg", class_="chart", width="100%", height=_PARETO_HEIGHT, role="img")
    plot.append(tag("title", f"{quality_name} against cost per answer"))
    bottom = _PARETO_HEIGHT - _PARETO_BOTTOM
    for tick in upward.ticks():
        add_tag(plot, "line", class_="grid", x1="8%", x2="96%", y1=y(tick), y2=y(tick))
        plot.append(tag("text", f"{tick:.3g}", class_="tick", x="7%", y=y(tick) + 4, text_anchor="end"))
    for tick in across.ticks():
        place = f"{across.percent(tick)}%"
        add_tag(plot, "line", class_="grid", x1=place, x2=place, y1=_PARETO_TOP, y2=bottom)
        plot.append(tag("text", cost_text(tick), class_="tick", x=place, y=bottom + 18, text_anchor="middle"))
    best = frontier(points, lower_is_better=lower_is_better)
    for one, following in pairwise(best):
        x1, x2 = f"{across.percent(one.cost)}%", f"{across.percent(following.cost)}%"
        add_tag(plot, "line", class_="frontier", x1=x1, x2=x2, y1=y(one.quality), y2=y(one.quality))
        add_tag(plot, "line", class_="frontier", x1=x2, x2=x2, y1=y(one.quality), y2=y(following.quality))
    taken: list[tuple[float, float, float, float]] = []
    for point in points:
        x = across.percent(point.cost)
        taken.append((x / 100 * _USUAL_WIDTH - 6, y(point.quality) - 6, 12, 12))
    for point in sorted(points, key=lambda each: each not in best):
        plot.append(_mark(point, across.percent(point.cost), y, on_frontier=point in best, taken=taken))
    return plot


def _mark(
    point: PlottedPoint,
    x: float,
    y: Callable[[float], float],
    *,
    on_frontier: bool,
    taken: list[tuple[float, float, float, float]],
) -> Element:
    mark = tag("g", class_="mark best" if on_frontier else "mark")
    mark.append(tag("title", point.title))
    if point.low is not None and point.high is not None:
        add_tag(mark, "line", class_="whisker", x1=f"{x}%", x2=f"{x}%", y1=y(point.low), y2=y(point.high))
    add_tag(mark, "circle", class_="dot", cx=f"{x}%", cy=y(point.quality), r=5)
    # What is on the frontier is named where there is room for it; otherwise the place in the ranking stands alone.
    number, _, name = point.label.partition(" ")
    for rest in [f" {name}", ""] if on_frontier and name else [""]:
        place = _free_place(number + rest, x / 100 * _USUAL_WIDTH, y(point.quality), taken)
        if place is not None:
            shift, baseline = place
            anchor = "start" if shift > 0 else "end"
            label = tag("text", number, class_="label", x=f"{x}%", y=baseline, dx=shift, text_anchor=anchor)
            label.append(tag("tspan", rest, class_="rest"))
            mark.append(label)
            break
    return mark


def _free_place(
    label: str, x: float, y: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float] | None:
    """How far right (or left, if negative) of a dot its label begins, and its baseline, where it covers nothing."""
    width = len(label) * _LABEL_CHARACTER
    for shift, rise in ((9.0, 4), (-9.0, 4), (4.0, -9), (-4.0, -9), (4.0, 18), (-4.0, 18)):
        left = x + shift - (width if shift < 0 else 0)
        box = (left, y + rise - _LABEL_HEIGHT + 3, width, _LABEL_HEIGHT)
        if left >= 0 and left + width <= _USUAL_WIDTH and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return shift, y + rise
    return None


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def histogram(values: Sequence[int], axis: Axis, marks: Sequence[float]) -> Element:
    """How values are spread along an axis; `marks` are drawn as lines across."""
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, max(0, math.floor(axis.share(max(value, axis.low)) * _BINS)))] += 1
    highest = max(counts)
    plot = tag("svg", class_="histogram", width="100%", height=_ROW_HEIGHT, aria_hidden="true")
    add_tag(plot, "line", class_="track", x1="0%", x2="100%", y1=_ROW_HEIGHT - 0.5, y2=_ROW_HEIGHT - 0.5)
    for number, count in enumerate(counts):
        if count:
            height = round(max(1.5, count / highest * (_ROW_HEIGHT - 6)), 1)
            x, width = round(number / _BINS * 100, 3), round(100 / _BINS, 3)
            add_tag(plot, "rect", class_="fill", x=f"{x}%", width=f"{width}%", y=_ROW_HEIGHT - height, height=height)
    for mark in marks:
        place = f"{round(axis.share(mark) * 100, 2)}%"
        add_tag(plot, "line", class_="quantile", x1=place, x2=place, y1=0, y2=_ROW_HEIGHT)
    return plot


def axis_labels(axis: Axis, text: Callable[[float], str]) -> Element:
    """The round values of a histogram's axis."""
    plot = tag("svg", class_="axis", width="100%", height=20, aria_hidden="true")
    for tick in axis.ticks():
        share = axis.share(tick)
        anchor = "start" if share < 0.06 else "end" if share > 0.94 else "middle"
        plot.append(tag("text", text(tick), class_="tick", x=f"{round(share * 100, 2)}%", y=14, text_anchor=anchor))
    return plot
