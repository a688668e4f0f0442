"""A run summed up: per model and parameter point, which numbers go to the statistics, and what they mean.

Every figure with its interval comes from the metrics service; nothing is averaged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.orchestrator.calls import NO_MONEY, NO_USAGE, Money, Usage, add_money, add_usage
from services.orchestrator.estimates import Estimate, Series
from services.orchestrator.product import CellAddress, Product
from services.orchestrator.records import ResultRecord
from services.orchestrator.scores import Score
from services.orchestrator.states import CellStatus
from services.runtime.errors import ResourceExhausted

POINTS_MAX = 2_000
"""Model and parameter points of one summary."""
VALUES_MAX = 200_000
"""Numbers of one series: what the metrics service takes."""
QUANTILES = (0.5, 0.95)


@dataclass(slots=True)
class _Numbers:
    """The values of one score at one point, and the clusters that they belong to."""

    score: Score
    values: list[float] = field(default_factory=list)
    clusters: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Point:
    """What is known of one model at one point of the grid."""

    model: int
    point: int
    cells: int
    ended: int = 0
    done: int = 0
    usage: Usage = NO_USAGE
    cost: Money = NO_MONEY
    latency_us: list[float] = field(default_factory=list)
    ttft_us: list[float] = field(default_factory=list)
    scores: dict[str, _Numbers] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Cells that ended without an answer."""
        return self.ended - self.done

    def add(self, record: ResultRecord, cluster: int, scores: Iterable[Score]) -> None:
        """Count a result. The cells of one cluster share prompt and row: they are not independent."""
        self.ended += 1
        self.usage = add_usage(self.usage, record.usage)
        self.cost = add_money(self.cost, record.cost)
        if record.status is not CellStatus.DONE:
            return
        self.done += 1
        self.latency_us.append(record.timing.latency_us)
        if record.timing.streamed and record.timing.ttft_output_us is not None:
            self.ttft_us.append(record.timing.ttft_output_us)
        for score in scores:
            numbers = self.scores.get(score.name)
            if numbers is None:
                numbers = self.scores[score.name] = _Numbers(score)
            if score.value is not None:
                numbers.values.append(score.value)
                numbers.clusters.append(cluster)

    def series(self, *, clustered: bool) -> Iterator[Series]:
        """The numbers of this point, in the order in which `PointFigures.read` takes their figures."""
        rate = [1.0] * self.done + [0.0] * self.missing
        yield Series("rate", rate)
        yield Series("quantiles", self.latency_us, quantiles=QUANTILES)
        yield Series("quantiles", self.ttft_us, quantiles=QUANTILES)
        for numbers in self.scores.values():
            low, high = _bounds(numbers.score)
            yield Series(
                "rate" if numbers.score.scale == "binary" else "mean",
                numbers.values,
                clusters=numbers.clusters if clustered else None,
                missing=self.ended - len(numbers.values),
                minimum=low,
                maximum=high,
            )


class ScoreFigure(NamedTuple):
    """One score at one point."""

    score: Score
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class PointFigures:
    """The figures of one point."""

    point: Point
    success_rate: Estimate
    latency_us: tuple[Estimate, ...]
    ttft_us: tuple[Estimate, ...]
    scores: tuple[ScoreFigure, ...]

    @classmethod
    def read(cls, point: Point, figures: Iterator[tuple[Estimate, ...]]) -> PointFigures:
        """Take this point's figures from those of all series."""
        success = next(figures)
        latency, ttft = next(figures), next(figures)
        scores = tuple(ScoreFigure(numbers.score, next(figures)[0]) for numbers in point.scores.values())
        return cls(point, success[0], latency, ttft if point.ttft_us else (), scores)


class Summary:
    """Collects a run's results, page by page."""

    def __init__(self, product: Product) -> None:
        """Raises ResourceExhausted for more points than a summary has."""
        count = product.models * product.points
        if count > POINTS_MAX:
            raise ResourceExhausted(
                "LIMIT_REACHED",
                f"the run has {count:,} models and parameter points, a summary at most {POINTS_MAX:,}; "
                "export the results instead",
            )
        self._product = product
        cells = product.prompts * product.rows * product.repeats
        self.points = [Point(model, point, cells) for model in range(product.models) for point in range(product.points)]

    def add(self, record: ResultRecord, scores: Iterable[Score]) -> None:
        """Count a result."""
        address: CellAddress = self._product.address(record.cell)
        cluster = address.prompt * self._product.rows + address.row
        self.points[address.model * self._product.points + address.point].add(record, cluster, scores)

    def series(self) -> list[Series]:
        """Everything that the statistics are asked about."""
        series = [each for point in self.points for each in point.series(clustered=self._product.repeats > 1)]
        largest = max(len(each.values) for each in series)
        if largest > VALUES_MAX:
            raise ResourceExhausted(
                "LIMIT_REACHED",
                f"one point has {largest:,} answers, a summary takes at most {VALUES_MAX:,}; "
                "export the results instead",
            )
        return series

    def figures(self, estimates: Sequence[tuple[Estimate, ...]]) -> list[PointFigures]:
        """The points with their figures, in the order of the experiment."""
        taken = iter(estimates)
        return [PointFigures.read(point, taken) for point in self.points]


def _bounds(score: Score) -> tuple[float | None, float | None]:
    """The lowest and highest possible value, where the scale has them: they bound what is missing."""
    return (0.0, 1.0) if score.scale in {"binary", "unit"} else (None, None)
