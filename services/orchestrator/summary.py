"""A run summed up: per model and parameter point, which numbers go to the statistics, and what they mean.

Every figure with its interval comes from the metrics service; nothing is averaged here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.orchestrator.calls import NO_MONEY, NO_USAGE, Money, Usage, add_money, add_usage
from services.orchestrator.estimates import ComparedGroup, Comparison, Estimate, Question, Series, SeriesKind
from services.orchestrator.product import CellAddress, Product
from services.orchestrator.records import ResultRecord
from services.orchestrator.scores import Score
from services.orchestrator.states import CellStatus
from services.runtime.errors import ResourceExhausted

POINTS_MAX = 2_000
"""Model and parameter points of one summary."""
VALUES_MAX = 200_000
"""Numbers of one series: what the metrics service takes."""
COMPARED_POINTS_MAX = 100
"""Points that are compared with the best one: what the metrics service takes."""
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
    scoring_cost: Money = NO_MONEY
    """What scoring by models cost; not in `cost`."""
    latency_us: list[float] = field(default_factory=list)
    ttft_us: list[float] = field(default_factory=list)
    scores: dict[str, _Numbers] = field(default_factory=dict)
    clusters: list[int] = field(default_factory=list)
    """The cluster of each cell that has ended."""

    @property
    def missing(self) -> int:
        """Cells that ended without an answer."""
        return self.ended - self.done

    def add(self, record: ResultRecord, cluster: int, scores: Iterable[Score]) -> None:
        """Count a result. The cells of one cluster share prompt and row: they are not independent."""
        self.ended += 1
        self.clusters.append(cluster)
        self.usage = add_usage(self.usage, record.usage)
        self.cost = add_money(self.cost, record.cost)
        if record.status is not CellStatus.DONE:
            return
        self.done += 1
        self.latency_us.append(record.timing.latency_us)
        if record.timing.streamed and record.timing.ttft_output_us is not None:
            self.ttft_us.append(record.timing.ttft_output_us)
        for score in scores:
            self.scoring_cost = add_money(self.scoring_cost, score.cost)
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
                _kind(numbers.score),
                numbers.values,
                clusters=numbers.clusters if clustered else None,
                missing=self.ended - len(numbers.values),
                minimum=low,
                maximum=high,
            )

    def group(self, name: str, key: str) -> ComparedGroup:
        """The numbers of one score by prompt and row, with what is missing."""
        numbers = self.scores.get(name)
        values, units = (numbers.values, numbers.clusters) if numbers else ([], [])
        missing = Counter(self.clusters)
        missing.subtract(units)
        return ComparedGroup(key, values, units, list(missing.elements()))


class ScoreFigure(NamedTuple):
    """One score at one point."""

    score: Score
    estimate: Estimate
    against_best: Comparison | None
    """How it compares with the best point; None for that one, and where nothing is compared."""


@dataclass(frozen=True, slots=True)
class PointFigures:
    """The figures of one point."""

    point: Point
    success_rate: Estimate
    latency_us: tuple[Estimate, ...]
    ttft_us: tuple[Estimate, ...]
    scores: tuple[ScoreFigure, ...]

    @classmethod
    def read(
        cls, point: Point, figures: Iterator[tuple[Estimate, ...]], compared: Mapping[str, Comparison]
    ) -> PointFigures:
        """Take this point's figures from those of all series; `compared` has its comparisons by score."""
        success = next(figures)
        latency, ttft = next(figures), next(figures)
        scores = tuple(
            ScoreFigure(numbers.score, next(figures)[0], compared.get(name)) for name, numbers in point.scores.items()
        )
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

    def questions(self) -> tuple[dict[str, Question], str]:
        """What is asked of each score that has a direction and that two points have; or why nothing is."""
        scores = {name: numbers.score for point in self.points for name, numbers in point.scores.items()}
        if len(self.points) > COMPARED_POINTS_MAX:
            return {}, f"more than {COMPARED_POINTS_MAX} models and parameter points are not compared with each other"
        if sum(len(point.clusters) for point in self.points) > VALUES_MAX:
            return {}, f"more than {VALUES_MAX:,} answers are not compared with each other"
        questions = {}
        for name, score in scores.items():
            held = [index for index, point in enumerate(self.points) if name in point.scores]
            if score.direction == "neutral" or len(held) < 2:
                continue
            groups = [self.points[index].group(name, str(index)) for index in held]
            low, high = _bounds(score)
            questions[name] = Question(_kind(score), groups, score.direction == "lower", low, high)
        return questions, ""

    def figures(
        self, estimates: Sequence[tuple[Estimate, ...]], compared: Mapping[str, Sequence[Comparison]]
    ) -> list[PointFigures]:
        """The points with their figures, in the order of the experiment; `compared` has comparisons by score."""
        taken = iter(estimates)
        of_points: list[dict[str, Comparison]] = [{} for _ in self.points]
        for name, comparisons in compared.items():
            for comparison in comparisons:
                of_points[int(comparison.first)][name] = comparison
        return [PointFigures.read(point, taken, of_points[index]) for index, point in enumerate(self.points)]


def _kind(score: Score) -> SeriesKind:
    return "rate" if score.scale == "binary" else "mean"


def _bounds(score: Score) -> tuple[float | None, float | None]:
    """The lowest and highest possible value, where the scale has them: they bound what is missing."""
    return (0.0, 1.0) if score.scale in {"binary", "unit"} else (None, None)
