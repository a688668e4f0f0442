"""Two runs, or two models, side by side: which prompts both have, and the numbers that are compared at them.

Every figure with its interval comes from the metrics service; nothing is judged here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from services.orchestrator.calls import NO_MONEY, NO_USAGE, Money, Usage, add_money, add_usage
from services.orchestrator.estimates import ComparedGroup, Question, Series, SeriesKind
from services.orchestrator.records import ResultRecord
from services.orchestrator.scores import Direction, Score
from services.orchestrator.spec_view import SpecView
from services.orchestrator.states import CellStatus
from services.orchestrator.summary import QUANTILES, VALUES_MAX
from services.runtime.errors import ResourceExhausted

DIFFERING_MAX = 20
ANSWERED, LATENCY, COST = "answered", "latency_us", "cost_nano_usd"
FIRST, SECOND = "first", "second"
_RANKED_BY = "quality"

UnitKey = tuple[str, tuple[tuple[str, str], ...]]
"""A prompt's name and its row's columns: what makes two questions the same, whichever run asks them."""


class Units:
    """Numbers for prompts and rows, the same on both sides."""

    def __init__(self) -> None:
        self._numbers: dict[UnitKey, int] = {}

    def number(self, view: SpecView, prompt: int, row: int) -> int:
        """The number of a prompt and row."""
        columns = tuple(sorted((name, repr(value)) for name, value in view.columns(row).items()))
        key = (view.spec.prompts[prompt].name, columns)
        return self._numbers.setdefault(key, len(self._numbers))


class Kind(NamedTuple):
    """What a figure is: how it is summed up, and which end of it is better."""

    kind: SeriesKind
    direction: Direction
    low: float | None = None
    high: float | None = None


@dataclass(slots=True)
class Numbers:
    """The values of one figure on one side, and the unit of each."""

    kind: Kind
    values: list[float] = field(default_factory=list)
    units: list[int] = field(default_factory=list)

    def add(self, value: float, unit: int) -> None:
        """Take a value."""
        self.values.append(value)
        self.units.append(unit)

    def means(self) -> dict[int, float]:
        """The mean of each unit."""
        sums: Counter[int] = Counter()
        for value, unit in zip(self.values, self.units, strict=True):
            sums[unit] += value  # type: ignore[assignment]  # a Counter adds any numbers
        counts = Counter(self.units)
        return {unit: total / counts[unit] for unit, total in sums.items()}


@dataclass(slots=True)
class Side:
    """One side's results, as they are read."""

    cells: int = 0
    done: int = 0
    usage: Usage = NO_USAGE
    cost: Money = NO_MONEY
    units: Counter[int] = field(default_factory=Counter)
    """Cells of each unit."""
    answers: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of each unit the first cell with an answer, and its row."""
    figures: dict[str, Numbers] = field(
        default_factory=lambda: {
            ANSWERED: Numbers(Kind("rate", "higher", 0.0, 1.0)),
            LATENCY: Numbers(Kind("mean", "lower")),
            COST: Numbers(Kind("mean", "lower")),
        }
    )

    def add(self, record: ResultRecord, unit: int, row: int, scores: Iterable[Score]) -> None:
        """Count a result. Raises ResourceExhausted."""
        if self.cells == VALUES_MAX:
            raise ResourceExhausted(
                "LIMIT_REACHED", f"a comparison takes at most {VALUES_MAX:,} results of each side; export them instead"
            )
        self.cells += 1
        self.units[unit] += 1
        self.usage, self.cost = add_usage(self.usage, record.usage), add_money(self.cost, record.cost)
        is_done = record.status is CellStatus.DONE
        self.figures[ANSWERED].add(float(is_done), unit)
        if not record.cost.unpriced_calls:
            self.figures[COST].add(record.cost.nano_usd, unit)
        if not is_done:
            return
        self.done += 1
        self.answers.setdefault(unit, (record.cell, row))
        self.figures[LATENCY].add(record.timing.latency_us, unit)
        for score in scores:
            numbers = self.figures.get(score.name)
            if numbers is None:
                numbers = self.figures[score.name] = Numbers(_kind(score))
            if score.value is not None:
                numbers.add(score.value, unit)

    def series(self, name: str) -> Series:
        """The numbers of one figure."""
        numbers = self.figures[name]
        kind = numbers.kind
        missing = self.cells - len(numbers.values)
        return Series(kind.kind, numbers.values, numbers.units, missing, kind.low, kind.high)

    def latencies(self) -> Series:
        """What latency quantiles are asked of."""
        numbers = self.figures[LATENCY]
        return Series("quantiles", numbers.values, numbers.units, quantiles=QUANTILES)

    def group(self, name: str, key: str) -> ComparedGroup:
        """The numbers of one figure by unit, with what is missing."""
        numbers = self.figures[name]
        missing = Counter(self.units)
        missing.subtract(numbers.units)
        return ComparedGroup(key, numbers.values, numbers.units, list(missing.elements()))


class Differing(NamedTuple):
    """A unit at which the sides differ: the means, a cell of each, and the row in the first side's run."""

    unit: int
    first: float
    second: float
    first_cell: int
    second_cell: int
    row: int


class Pair:
    """Both sides, and what is asked about them."""

    def __init__(self) -> None:
        self.first = Side()
        self.second = Side()

    @property
    def shared(self) -> int:
        """Units that both have."""
        return len(self.first.units.keys() & self.second.units.keys())

    def names(self) -> list[str]:
        """The figures that both have: answered, latency and cost, then scores by name."""
        plain = [ANSWERED, LATENCY, COST]
        return plain + sorted((self.first.figures.keys() & self.second.figures.keys()) - set(plain))

    def question(self, name: str) -> Question:
        """How the first compares with the second by one figure."""
        kind = self.first.figures[name].kind
        groups = [self.first.group(name, FIRST), self.second.group(name, SECOND)]
        return Question(kind.kind, groups, kind.direction == "lower", kind.low, kind.high, baseline=SECOND)

    def differing_by(self) -> str:
        """The score that differences of units are shown by; empty for none."""
        scores = self.names()[3:]
        directed = [name for name in scores if self.first.figures[name].kind.direction != "neutral"]
        return _RANKED_BY if _RANKED_BY in directed else next(iter(directed), "")

    def differing(self, name: str) -> list[Differing]:
        """The units at which the means of a score differ, the largest difference first."""
        mine, theirs = self.first.figures[name].means(), self.second.figures[name].means()
        found = []
        for unit in mine.keys() & theirs.keys():
            if mine[unit] != theirs[unit]:
                cell, row = self.first.answers[unit]
                found.append(Differing(unit, mine[unit], theirs[unit], cell, self.second.answers[unit][0], row))
        found.sort(key=lambda each: (-abs(each.first - each.second), each.first_cell))
        return found[:DIFFERING_MAX]


def _kind(score: Score) -> Kind:
    low, high = (0.0, 1.0) if score.scale in {"binary", "unit"} else (None, None)
    return Kind("rate" if score.scale == "binary" else "mean", score.direction, low, high)
