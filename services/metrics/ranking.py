"""Players ranked by their games against each other, with how sure the ranking is.

The ratings are those of R. A. Bradley and M. E. Terry ("Rank analysis of incomplete block designs", Biometrika 39,
1952), fitted by maximum likelihood, on the scale of Elo: 400 points are odds of ten to one. A tie is half a win for
each.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from services.metrics.intervals import UNKNOWN, Interval, Numbers, normal_quantile, t_quantile
from services.runtime.errors import InvalidField
from services.runtime.stopping import check_stopped

ELO: Final = 400.0 / math.log(10.0)
"""Points of one unit of the logarithm of the odds."""
DRAWS: Final = 1_000
"""Draws of the bootstrap."""

_DRAWS_AT_ONCE: Final = 50
_PRIOR_MIN: Final = 1e-3
"""Wins that a draw gives at least: without any, a player that lost its only game would fall without end."""
_STEPS_MAX: Final = 100
_STEP_MAX: Final = 1.5
_PRECISION: Final = 1e-9
_DECIMALS: Final = 6
"""Of ratings, so that the last bits of a platform's linear algebra can't show."""

Indices: TypeAlias = npt.NDArray[np.int64]
Wins: TypeAlias = npt.NDArray[np.float64]
"""Wins of the row's player over the column's, for each draw."""


@dataclass(frozen=True, slots=True)
class Games:
    """Games of two players each. Plain bytes carry them, so that they cross into a worker process as they are."""

    players: tuple[str, ...]
    first: bytes
    """64-bit whole numbers: the index of the first player of each game."""
    second: bytes
    """The same of the second."""
    scores: bytes
    """64-bit floating-point numbers: 1 where the first won, 0.5 for a tie, 0 where the second won."""
    clusters: bytes = b""
    """64-bit whole numbers: games of one cluster depend on each other; none where all are independent."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One player's place."""

    player: str
    rating: float
    """Elo; the mean of all players is 0."""
    interval: Interval
    rank: int
    best_rank: int
    """1 and the number of players that are better beyond doubt."""
    worst_rank: int
    within_noise: bool
    """Whether the next player may be as good: the interval of their difference holds 0. False for the last."""
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Players, best first."""

    standings: tuple[Standing, ...]
    separated: bool
    """Whether some players won every game against all others: no finite ratings fit that best, so half a win each way
    was added to every pairing."""
    games: int
    clusters: int


@dataclass(frozen=True, slots=True)
class _Pairings:
    """The games in numbers: whose pairing each is, and what came of it."""

    players: int
    low: Indices
    """The pairings' players; `low` is the one with the smaller index."""
    high: Indices
    pairing: Indices
    """Each game's pairing."""
    scores: Numbers
    """From the view of `low`."""
    cluster: Indices
    clusters: int


def rank(games: Games, confidence: float, draws: int = DRAWS) -> Ranking:
    """The ranking of players all of whom are connected by games. Runs in a worker process.

    The intervals are of a Bayesian bootstrap (D. B. Rubin, Annals of Statistics 9, 1981) of the clusters, with
    Jeffreys' prior: half a win each way for each degree of freedom, spread over the pairings. Of two players with
    independent games it is Jeffreys' interval of the win rate. Draws come from a generator that is seeded by the games,
    whose stream numpy has frozen (NEP 19).

    Raises:
        InvalidField: the games break a rule.
    """
    pairings = _read(games)
    wins = _wins(pairings, pairings.scores, 1.0 - pairings.scores)[None]
    separated = not _connected(wins[0] > 0)
    if separated:
        half = np.full(len(pairings.low), 0.5)
        wins = wins + _square(pairings, half, half)
    ratings = np.round(_fit(wins)[0] * ELO, _DECIMALS)
    drawn = None
    if pairings.clusters > 1 or len(pairings.scores) == 1:
        drawn = _draw(pairings, _seed(games), confidence, draws)
    standings = _standings(games.players, ratings, drawn, pairings, confidence)
    return Ranking(standings, separated, len(pairings.scores), pairings.clusters)


def _read(games: Games) -> _Pairings:
    first, second = (np.frombuffer(packed, dtype=np.int64) for packed in (games.first, games.second))
    scores = np.frombuffer(games.scores, dtype=np.float64)
    count = len(games.players)
    if len(set(games.players)) < count:
        raise InvalidField("players", "must be distinct")
    for name, numbers in (("second", second), ("scores", scores)):
        if len(numbers) != len(first):
            raise InvalidField(name, f"must be as many as first ({len(first)}), not {len(numbers)}")
    for name, numbers in (("first", first), ("second", second)):
        _refuse((numbers < 0) | (numbers >= count), name, f"must be the index of a player, 0 - {count - 1}")
    _refuse(first == second, "second", "must be another player than first")
    _refuse((scores != 0.0) & (scores != 0.5) & (scores != 1.0), "scores", "must be 0, 0.5 or 1")
    cluster, clusters = _clusters(games.clusters, len(first))
    swapped = first > second
    codes, pairing = np.unique(np.minimum(first, second) * count + np.maximum(first, second), return_inverse=True)
    low, high = codes // count, codes % count
    met = np.zeros((count, count), dtype=np.bool_)
    met[low, high] = met[high, low] = True
    if not _connected(met):
        message = "must all be connected by games: of two that never met, not even through others, neither is better"
        raise InvalidField("players", message)
    return _Pairings(count, low, high, pairing, np.where(swapped, 1.0 - scores, scores), cluster, clusters)


def _clusters(packed: bytes, count: int) -> tuple[Indices, int]:
    if not packed:
        return np.arange(count), count
    clusters = np.frombuffer(packed, dtype=np.int64)
    if len(clusters) != count:
        raise InvalidField("clusters", f"must be as many as first ({count}) or none, not {len(clusters)}")
    keys, places = np.unique(clusters, return_inverse=True)
    return places, len(keys)


def _refuse(wrong: npt.NDArray[np.bool_], field: str, message: str) -> None:
    if wrong.any():
        raise InvalidField(f"{field}[{int(np.argmax(wrong))}]", message)


def _connected(beaten: npt.NDArray[np.bool_]) -> bool:
    """Whether every player is reached from every other; only then are there ratings of greatest likelihood.

    L. R. Ford, "Solution of a ranking problem from binary comparisons", American Mathematical Monthly 64 (1957).
    """
    from scipy.sparse.csgraph import connected_components

    parts, _ = connected_components(beaten, directed=True, connection="strong")
    return int(parts) == 1


def _wins(pairings: _Pairings, low_wins: Numbers, high_wins: Numbers) -> Wins:
    count = len(pairings.low)
    of_low = np.bincount(pairings.pairing, weights=low_wins, minlength=count)
    of_high = np.bincount(pairings.pairing, weights=high_wins, minlength=count)
    return _square(pairings, of_low.astype(np.float64), of_high.astype(np.float64))


def _square(pairings: _Pairings, of_low: Numbers, of_high: Numbers) -> Wins:
    wins = np.zeros((pairings.players, pairings.players))
    wins[pairings.low, pairings.high] = of_low
    wins[pairings.high, pairings.low] = of_high
    return wins


def _fit(wins: Wins) -> Numbers:
    """The ratings of greatest likelihood of each draw, in logarithms of odds with mean 0, by Newton's method."""
    draws, players, _ = wins.shape
    games = wins + wins.transpose(0, 2, 1)
    won = wins.sum(axis=2)
    ratings = np.zeros((draws, players))
    diagonal = np.arange(players)
    # Adding a constant to all ratings changes nothing; this holds their mean at 0.
    centre = np.full((players, players), 1.0 / players)
    for _ in range(_STEPS_MAX):
        check_stopped()
        expected = 1.0 / (1.0 + np.exp(ratings[:, None, :] - ratings[:, :, None]))
        gradient = won - (games * expected).sum(axis=2)
        curvature = -games * expected * (1.0 - expected)
        curvature[:, diagonal, diagonal] -= curvature.sum(axis=2)
        step = np.linalg.solve(curvature + centre, gradient[:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        ratings += step * np.minimum(1.0, _STEP_MAX / np.maximum(longest, _PRECISION))
        if float(longest.max()) < _PRECISION:
            break
    return ratings


def _seed(games: Games) -> int:
    digest = hashlib.sha256(b"".join((games.first, games.second, games.scores, games.clusters)))
    return int.from_bytes(digest.digest()[:4], "big")


def _draw(pairings: _Pairings, seed: int, confidence: float, draws: int) -> Numbers:
    """Ratings in Elo, one row for each draw."""
    generator = np.random.RandomState(seed)
    prior = 0.5 * (pairings.players - 1) / len(pairings.low)
    shape = _weight_shape(pairings, confidence)
    rows = []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        batch = np.empty((min(_DRAWS_AT_ONCE, draws - start), pairings.players, pairings.players))
        for index in range(len(batch)):
            weights = generator.standard_gamma(shape, pairings.clusters)[pairings.cluster]
            drawn = _wins(pairings, weights * pairings.scores, weights * (1.0 - pairings.scores))
            of_low, of_high = np.maximum(generator.standard_gamma(prior, (2, len(pairings.low))), _PRIOR_MIN)
            batch[index] = drawn + _square(pairings, of_low, of_high)
        rows.append(_fit(batch))
    return np.round(np.concatenate(rows) * ELO, _DECIMALS)


def _weight_shape(pairings: _Pairings, confidence: float) -> float:
    """The shape of the gamma weights: 1 for independent games; less, which is wider, for few clusters, as t is."""
    clusters = pairings.clusters
    if clusters == len(pairings.scores) or clusters < 2:
        return 1.0
    level = (1.0 + confidence) / 2.0
    return (clusters - 1) / clusters * (normal_quantile(level) / t_quantile(clusters - 1, level)) ** 2


def _standings(
    players: tuple[str, ...], ratings: Numbers, drawn: Numbers | None, pairings: _Pairings, confidence: float
) -> tuple[Standing, ...]:
    """Without draws, which is where one cluster holds all games, nothing is known of how sure the ratings are."""
    tails = [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
    order = sorted(range(len(players)), key=lambda index: -ratings[index])
    standings = []
    for place, index in enumerate(order):
        interval, best, worst, noise = UNKNOWN, 1, len(players), np.ones(len(players), np.bool_)
        if drawn is not None:
            low, high = np.quantile(drawn[:, index], tails)
            interval = Interval(round(float(low), _DECIMALS), round(float(high), _DECIMALS))
            # What each other player is ahead of this one by.
            ahead_low, ahead_high = np.quantile(drawn - drawn[:, index : index + 1], tails, axis=0)
            best, worst = 1 + int((ahead_low > 0.0).sum()), len(players) - int((ahead_high < 0.0).sum())
            noise = (ahead_low <= 0.0) & (ahead_high >= 0.0)
        within_noise = place + 1 < len(order) and bool(noise[order[place + 1]])
        rating, record = float(ratings[index]), _record(pairings, index)
        standings.append(Standing(players[index], rating, interval, place + 1, best, worst, within_noise, *record))
    return tuple(standings)


def _record(pairings: _Pairings, player: int) -> tuple[int, int, int]:
    """Games won, tied and lost."""
    as_low, as_high = pairings.low[pairings.pairing] == player, pairings.high[pairings.pairing] == player
    won = (as_low & (pairings.scores == 1.0)) | (as_high & (pairings.scores == 0.0))
    tied = (as_low | as_high) & (pairings.scores == 0.5)
    lost = (as_low & (pairings.scores == 0.0)) | (as_high & (pairings.scores == 1.0))
    return int(won.sum()), int(tied.sum()), int(lost.sum())
