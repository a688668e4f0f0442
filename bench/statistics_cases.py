"""The grid of `bench.statistics`: what is drawn, what is asked of it, and what the truth is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.metrics.comparisons import Comparison, Question, compare
from services.metrics.intervals import Interval
from services.metrics.pairing import Group
from services.metrics.ranking import ELO, Games, rank
from services.metrics.summaries import Series, SeriesKind, summarize

Numbers = NDArray[np.floating[Any]]
Rng = np.random.Generator
LEVEL: Final = 0.95
RANKING_DRAWS: Final = 200


@dataclass(frozen=True, slots=True)
class Case:
    """One point of the grid."""

    name: str
    happens: Callable[[Rng], bool]
    """Draws once, and says whether the interval holds the truth, or the test sees a difference."""
    weight: float = 1.0
    """Of the simulations asked for, what is slow runs a part."""


def _holds(interval: Interval, truth: float) -> bool:
    """Equal ends and truths may differ in their last bits."""
    above = interval.low is None or interval.low <= truth + 1e-12
    return above and (interval.high is None or truth - 1e-12 <= interval.high)


def _interval(
    kind: SeriesKind,
    values: Numbers,
    clusters: NDArray[np.int64] | None = None,
    bounds: tuple[float, float] | None = None,
    quantiles: tuple[float, ...] = (),
) -> Interval:
    low, high = bounds or (None, None)
    packed = b"" if clusters is None else clusters.astype(np.int64).tobytes()
    series = Series("", kind, values.astype(np.float64).tobytes(), packed, 0, low, high, quantiles)
    return summarize(series, LEVEL)[0].interval


# Rates: how many, and how probable.


def _rates() -> Iterator[Case]:
    for count, rate in product((5, 10, 20, 50, 100, 500), (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)):

        def happens(rng: Rng, count: int = count, rate: float = rate) -> bool:
            return _holds(_interval(SeriesKind.RATE, (rng.random(count) < rate) * 1.0), rate)

        yield Case(f"{count} with rate {rate}", happens)


CLUSTERS: Final = ((5, 5), (10, 3), (10, 10), (20, 5), (50, 5))
"""How many clusters of how many numbers."""


def _clustered_rates() -> Iterator[Case]:
    for (groups, size), alike, rate in product(CLUSTERS, (0.05, 0.3, 0.7), (0.02, 0.1, 0.3, 0.5, 0.9, 0.98)):

        def happens(rng: Rng, groups: int = groups, size: int = size, alike: float = alike, rate: float = rate) -> bool:
            strength = 1.0 / alike - 1.0
            index = np.repeat(np.arange(groups), size)
            rates = rng.beta(rate * strength, (1.0 - rate) * strength, groups)[index]
            return _holds(_interval(SeriesKind.RATE, (rng.random(groups * size) < rates) * 1.0, index), rate)

        yield Case(f"{groups} x {size}, correlation {alike}, rate {rate}", happens)


# Means: of what.


@dataclass(frozen=True, slots=True)
class Shape:
    """A distribution with its mean."""

    name: str
    draw: Callable[[Rng, int], Numbers]
    mean: float


UNBOUNDED: Final = (
    Shape("normal", lambda rng, n: rng.normal(0.0, 1.0, n), 0.0),
    Shape("uniform", lambda rng, n: rng.random(n), 0.5),
    Shape("t with 4 degrees", lambda rng, n: rng.standard_t(4, n), 0.0),
    Shape("gamma of shape 4", lambda rng, n: rng.gamma(4.0, 1.0, n), 4.0),
    Shape("exponential", lambda rng, n: rng.exponential(1.0, n), 1.0),
    Shape("log-normal, sigma 0.75", lambda rng, n: rng.lognormal(0.0, 0.75, n), math.exp(0.28125)),
)
BOUNDED: Final = (
    Shape("uniform", lambda rng, n: rng.random(n), 0.5),
    Shape("beta(8, 2)", lambda rng, n: rng.beta(8.0, 2.0, n), 0.8),
    Shape("beta(0.5, 0.5)", lambda rng, n: rng.beta(0.5, 0.5, n), 0.5),
    Shape("beta(2, 0.2)", lambda rng, n: rng.beta(2.0, 0.2, n), 2.0 / 2.2),
    Shape("70 % at 1, else uniform", lambda rng, n: np.where(rng.random(n) < 0.7, 1.0, rng.random(n)), 0.85),
    Shape(
        "five grades", lambda rng, n: rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], n, p=[0.02, 0.03, 0.1, 0.25, 0.6]), 0.845
    ),
)
COUNTS: Final = (5, 10, 20, 50, 200)


def _means(shapes: Sequence[Shape], bounds: tuple[float, float] | None) -> Iterator[Case]:
    for shape, count in product(shapes, COUNTS):

        def happens(rng: Rng, shape: Shape = shape, count: int = count) -> bool:
            return _holds(_interval(SeriesKind.MEAN, shape.draw(rng, count), None, bounds), shape.mean)

        yield Case(f"{count} of {shape.name}", happens)


UNEQUAL: Final = (1, 2, 3, 5, 8, 1, 2, 3, 5, 8)
SIZES: Final = ((5,) * 5, (3,) * 10, UNEQUAL, (5,) * 20, (4,) * 50)


def _clustered_means() -> Iterator[Case]:
    for sizes, alike in product(SIZES, (0.1, 0.5, 0.9)):
        index = np.repeat(np.arange(len(sizes)), sizes)
        name = f"{len(sizes)} clusters of {'1 - 8' if sizes == UNEQUAL else sizes[0]}, correlation {alike}"

        def normal(rng: Rng, index: NDArray[np.int64] = index, alike: float = alike) -> bool:
            values = _correlated(rng, index, alike)
            return _holds(_interval(SeriesKind.MEAN, values, index), 0.0)

        def scores(rng: Rng, index: NDArray[np.int64] = index, alike: float = alike) -> bool:
            strength = 1.0 / alike - 1.0
            means = np.clip(rng.beta(0.85 * strength, 0.15 * strength, index[-1] + 1), 1e-9, 1.0 - 1e-9)[index]
            values = rng.beta(5.0 * means, 5.0 * (1.0 - means))
            return _holds(_interval(SeriesKind.MEAN, values, index, (0.0, 1.0)), 0.85)

        yield Case(f"normal, {name}", normal)
        yield Case(f"scores, {name}", scores)


def _correlated(rng: Rng, index: NDArray[np.int64], alike: float) -> Numbers:
    """Standard normal numbers; those of a cluster correlate."""
    between = rng.normal(0.0, math.sqrt(alike), int(index[-1]) + 1)[index]
    return np.asarray(between + rng.normal(0.0, math.sqrt(1.0 - alike), len(index)))


# Quantiles. The truth is by each distribution's own quantile function.


def _normal_quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


QUANTILES: Final = (0.05, 0.25, 0.5, 0.9, 0.95, 0.99)


def _quantiles() -> Iterator[Case]:
    for share, count in product(QUANTILES, (10, 20, 30, 50, 100, 200, 500)):
        if count * min(share, 1.0 - share) < 1.0:
            continue

        def latencies(rng: Rng, share: float = share, count: int = count) -> bool:
            interval = _interval(SeriesKind.QUANTILES, rng.lognormal(0.0, 0.75, count), quantiles=(share,))
            return _holds(interval, math.exp(0.75 * _normal_quantile(share)))

        def gaps(rng: Rng, share: float = share, count: int = count) -> bool:
            interval = _interval(SeriesKind.QUANTILES, rng.exponential(1.0, count), quantiles=(share,))
            return _holds(interval, -math.log1p(-share))

        yield Case(f"{share} of {count} log-normal", latencies)
        yield Case(f"{share} of {count} exponential", gaps)


def _clustered_quantiles() -> Iterator[Case]:
    for share, (groups, size), alike in product((0.1, 0.5, 0.9, 0.95), CLUSTERS[1:], (0.1, 0.5, 0.8)):
        if groups * size * min(share, 1.0 - share) < 1.0:
            continue

        def happens(
            rng: Rng, share: float = share, groups: int = groups, size: int = size, alike: float = alike
        ) -> bool:
            index = np.repeat(np.arange(groups), size)
            interval = _interval(SeriesKind.QUANTILES, _correlated(rng, index, alike), index, quantiles=(share,))
            return _holds(interval, _normal_quantile(share))

        yield Case(f"{share} of {groups} x {size}, correlation {alike}", happens)


# Pairs.


def _compared(
    kind: SeriesKind, first: Numbers, second: Numbers, units: NDArray[np.int64], bounds: tuple[float, float] | None
) -> Comparison:
    low, high = bounds or (None, None)
    packed = units.astype(np.int64).tobytes()
    groups = tuple(
        Group(key, values.astype(np.float64).tobytes(), packed) for key, values in (("a", first), ("b", second))
    )
    return compare(Question(kind, groups, minimum=low, maximum=high), LEVEL)[1][0]


Drawn = tuple[Numbers, Numbers, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two groups on the same units, with the true difference of their means."""

    kind: SeriesKind
    name: str
    draw: Callable[[Rng], Drawn]
    difference: float
    bounds: tuple[float, float] | None = None

    def covered(self) -> Case:
        """Whether the interval of the difference holds the truth."""

        def happens(rng: Rng) -> bool:
            found = _compared(self.kind, *self.draw(rng), self.bounds)
            return _holds(found.difference.interval, self.difference)

        return Case(self.name, happens)

    def mistaken(self) -> Case:
        """Whether the test sees a difference, where there is none."""

        def happens(rng: Rng) -> bool:
            p_value = _compared(self.kind, *self.draw(rng), self.bounds).p_value
            return p_value is not None and p_value <= 1.0 - LEVEL

        return Case(self.name, happens, 4.0)


def _rate_pairs(rates: Sequence[tuple[float, float]]) -> Iterator[Pairing]:
    for (one, two), count, alike in product(rates, (10, 20, 50, 100, 300), (0.0, 0.5)):
        first, second = _normal_quantile(one), _normal_quantile(two)

        def draw(
            rng: Rng, first: float = first, second: float = second, count: int = count, alike: float = alike
        ) -> Drawn:
            shared = rng.normal(0.0, math.sqrt(alike), count)
            noise = rng.normal(0.0, math.sqrt(1.0 - alike), (2, count))
            return (shared + noise[0] < first) * 1.0, (shared + noise[1] < second) * 1.0, np.arange(count)

        name = f"{count} pairs, {one} against {two}, correlation {alike}"
        yield Pairing(SeriesKind.RATE, name, draw, one - two)


def _mean_pairs(*, shifted: bool) -> Iterator[Pairing]:
    for count in (5, 10, 20, 50, 200):

        def normal(rng: Rng, count: int = count) -> Drawn:
            prompts = rng.normal(0.0, 2.0, count)
            noise = rng.normal(0.0, 1.0, (2, count))
            return prompts + noise[0] + 0.5 * shifted, prompts + noise[1], np.arange(count)

        def skewed(rng: Rng, count: int = count) -> Drawn:
            prompts = rng.lognormal(0.0, 0.5, count)
            noise = rng.lognormal(0.0, 0.75, (2, count))
            return prompts * noise[0] * (2.0 if shifted else 1.0), prompts * noise[1], np.arange(count)

        def scores(rng: Rng, count: int = count) -> Drawn:
            good, usual = rng.beta(9.0 if shifted else 6.0, 2.0, count), rng.beta(6.0, 2.0, count)
            return good, usual, np.arange(count)

        def piled(rng: Rng, count: int = count) -> Drawn:
            perfect = 0.9 if shifted else 0.6
            good = np.where(rng.random(count) < perfect, 1.0, rng.random(count))
            return good, np.where(rng.random(count) < 0.6, 1.0, rng.random(count)), np.arange(count)

        middle = math.exp(0.125 + 0.28125)
        yield Pairing(SeriesKind.MEAN, f"{count} pairs, normal", normal, 0.5 * shifted)
        yield Pairing(SeriesKind.MEAN, f"{count} pairs, log-normal", skewed, middle * shifted)
        yield Pairing(SeriesKind.MEAN, f"{count} pairs, beta scores", scores, (9 / 11 - 0.75) * shifted, (0.0, 1.0))
        yield Pairing(SeriesKind.MEAN, f"{count} pairs, scores piled at 1", piled, 0.15 * shifted, (0.0, 1.0))


def _repeat_pairs(*, shifted: bool) -> Iterator[Pairing]:
    for count, repeats in product((6, 10, 20, 50), (3, 5)):
        units = np.repeat(np.arange(count), repeats)

        def passes(rng: Rng, count: int = count, units: NDArray[np.int64] = units) -> Drawn:
            rates = rng.beta(1.0, 1.0, count)[units]
            more = rates + 0.5 * (1.0 - rates) if shifted else rates
            return (rng.random(len(units)) < more) * 1.0, (rng.random(len(units)) < rates) * 1.0, units

        def scores(rng: Rng, count: int = count, units: NDArray[np.int64] = units) -> Drawn:
            ease = 0.5 * rng.random(count)[units]
            noise = 0.4 * rng.random((2, len(units)))
            return ease + noise[0] + 0.1 * shifted, ease + noise[1], units

        name = f"{count} prompts x {repeats}"
        yield Pairing(SeriesKind.RATE, f"{name}, pass or fail", passes, 0.25 * shifted)
        yield Pairing(SeriesKind.MEAN, f"{name}, scores", scores, 0.1 * shifted, (0.0, 1.0))


# Rankings: every player meets every other once a prompt.


def _ratings() -> Iterator[Case]:
    for players, prompts, spread in product((2, 4), (10, 30, 100), (0.0, 200.0, 500.0)):
        truth = np.linspace(spread / 2.0, -spread / 2.0, players)
        first, second = (np.tile(index, prompts) for index in np.triu_indices(players, 1))
        clusters = np.repeat(np.arange(prompts), math.comb(players, 2))

        def happens(
            rng: Rng,
            truth: Numbers = truth,
            first: NDArray[np.int64] = first,
            second: NDArray[np.int64] = second,
            clusters: NDArray[np.int64] = clusters,
        ) -> bool:
            odds = np.exp((truth[first] - truth[second]) / ELO)
            scores = (rng.random(len(first)) < odds / (1.0 + odds)).astype(np.float64)
            names = tuple(map(str, range(len(truth))))
            one, two, of_prompts = (numbers.astype(np.int64).tobytes() for numbers in (first, second, clusters))
            games = Games(names, one, two, scores.tobytes(), of_prompts)
            standings = rank(games, LEVEL, RANKING_DRAWS).standings
            best = next(standing for standing in standings if standing.player == "0")
            return _holds(best.interval, float(truth[0]))

        yield Case(f"{players} players, {prompts} prompts, {spread:.0f} Elo apart", happens, 0.15)


CASES: Final[dict[str, list[Case]]] = {
    "rate": list(_rates()),
    "rate, clustered": list(_clustered_rates()),
    "mean": list(_means(UNBOUNDED, None)),
    "mean between bounds": list(_means(BOUNDED, (0.0, 1.0))),
    "mean, clustered": list(_clustered_means()),
    "quantile": list(_quantiles()),
    "quantile, clustered": list(_clustered_quantiles()),
    "difference of rates, paired": [
        pairing.covered() for pairing in _rate_pairs([(0.5, 0.3), (0.8, 0.8), (0.9, 0.8), (0.95, 0.95), (0.99, 0.9)])
    ],
    "difference of means, paired": [pairing.covered() for pairing in _mean_pairs(shifted=True)],
    "difference with repeats, paired": [pairing.covered() for pairing in _repeat_pairs(shifted=True)],
    "rating": list(_ratings()),
}
"""Whether intervals hold the truth, by kind of figure."""

TESTS: Final[dict[str, list[Case]]] = {
    "McNemar mid-p": [
        pairing.mistaken() for pairing in _rate_pairs([(0.5, 0.5), (0.2, 0.2), (0.9, 0.9), (0.98, 0.98)])
    ],
    "paired t": [pairing.mistaken() for pairing in _mean_pairs(shifted=False)],
    "paired t, repeats": [pairing.mistaken() for pairing in _repeat_pairs(shifted=False)],
}
"""How often paired tests see a difference where there is none."""
