import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from services.metrics.intervals import Interval
from services.metrics.ranking import Games, Ranking, Standing, rank
from services.runtime.errors import InvalidField


def games(
    players: str, first: Sequence[int], second: Sequence[int], scores: Sequence[float], clusters: Sequence[int] = ()
) -> Games:
    one, two, of_games = (np.array(numbers, dtype=np.int64).tobytes() for numbers in (first, second, clusters))
    return Games(tuple(players), one, two, np.array(scores, dtype=np.float64).tobytes(), of_games)


def ranked(played: Games) -> dict[str, Standing]:
    return {standing.player: standing for standing in rank(played, 0.95).standings}


def series(wins: float, ties: int, losses: int) -> Games:
    count = int(wins + ties + losses)
    return games("ab", [0] * count, [1] * count, [1.0] * int(wins) + [0.5] * ties + [0.0] * losses)


@pytest.mark.parametrize("played", [series(75, 0, 25), series(50, 50, 0)], ids=["75:25", "a tie is half a win"])
def test_three_to_one_is_190_elo(played: Games) -> None:
    # 400 log10(3), by the definition of the Elo scale.
    standings = ranked(played)
    assert standings["a"].rating - standings["b"].rating == pytest.approx(190.85, abs=0.005)


def test_interval_of_two_players_is_that_of_jeffreys() -> None:
    # Jeffreys' 95 % interval of 75 of 100 is 0.6588 - 0.8268, by the quantiles of Beta(75.5, 25.5): 114.4 - 271.4 Elo
    # between the two, half of it from their mean.
    standing = ranked(series(75, 0, 25))["a"]
    assert standing.interval.low == pytest.approx(57.2, abs=4.0)
    assert standing.interval.high == pytest.approx(135.7, abs=4.0)


def test_ratings_explain_the_scores() -> None:
    """At the greatest likelihood every player's expected wins are the wins that it has."""
    generator = np.random.default_rng(5)
    first, step = generator.integers(0, 4, 300), generator.integers(1, 4, 300)
    second, scores = (first + step) % 4, generator.choice([0.0, 0.5, 1.0], 300)
    standings = ranked(games("abcd", first.tolist(), second.tolist(), scores.tolist()))
    rating = np.array([standings[player].rating for player in "abcd"])
    expected = 1.0 / (1.0 + 10.0 ** ((rating[second] - rating[first]) / 400.0))
    for player in range(4):
        surplus = np.where(first == player, scores - expected, np.where(second == player, expected - scores, 0.0))
        assert float(surplus.sum()) == pytest.approx(0.0, abs=1e-5)
    assert sum(rating) == pytest.approx(0.0, abs=1e-5)


def test_what_is_clear_and_what_is_noise() -> None:
    first, second = [0] * 50 + [0] * 50 + [1] * 50, [1] * 50 + [2] * 50 + [2] * 50
    scores = [1.0] * 26 + [0.0] * 24 + [1.0] * 45 + [0.0] * 5 + [1.0] * 46 + [0.0] * 4
    ranking = rank(games("abc", first, second, scores), 0.95)
    assert [standing.rank for standing in ranking.standings] == [1, 2, 3]
    assert [standing.within_noise for standing in ranking.standings] == [True, False, False]
    assert [(standing.best_rank, standing.worst_rank) for standing in ranking.standings] == [(1, 2), (1, 2), (3, 3)]
    last = ranking.standings[-1]
    assert (last.player, last.wins, last.ties, last.losses) == ("c", 9, 0, 91)
    assert not ranking.separated


def test_clusters_widen_the_interval() -> None:
    count, generator = 120, np.random.default_rng(8)
    prompts = np.arange(count) // 10
    scores = (generator.random(12) < 0.6).astype(float)[prompts]
    plain = ranked(games("ab", [0] * count, [1] * count, scores.tolist()))["a"].interval
    clustered = ranked(games("ab", [0] * count, [1] * count, scores.tolist(), prompts.tolist()))["a"].interval
    assert clustered.high - clustered.low > 2 * (plain.high - plain.low)  # type: ignore[operator]


def test_one_cluster_says_nothing() -> None:
    standing = ranked(games("ab", [0] * 9, [1] * 9, [1.0] * 5 + [0.0] * 4, [7] * 9))["a"]
    assert standing.interval == Interval(None, None)
    assert (standing.best_rank, standing.worst_rank, standing.within_noise) == (1, 2, True)


def test_who_wins_always_has_a_finite_rating_and_says_so() -> None:
    ranking = rank(games("ab", [0] * 10, [1] * 10, [1.0] * 10), 0.95)
    assert ranking.separated
    best = ranking.standings[0]
    # Half a win for the other: 10.5 to 0.5.
    assert best.rating == pytest.approx(200 * np.log10(21.0), abs=1e-5)
    assert best.interval.low > 0.0  # type: ignore[operator]


def test_one_lost_game_in_a_crowd_has_finite_ratings() -> None:
    """The prior of a crowd is spread over its pairings: the only one of the newcomer has next to nothing of it."""
    count = 20
    first, second = np.triu_indices(count - 1, 1)
    scores = np.arange(len(first)) % 2
    played = games(
        "abcdefghijklmnopqrst"[:count], [*first.tolist(), 0], [*second.tolist(), count - 1], [*scores.tolist(), 1]
    )
    newcomer = ranked(played)["t"]
    assert newcomer.interval.low is not None
    assert newcomer.interval.high is not None
    assert -3_000.0 < newcomer.interval.low < newcomer.rating < newcomer.interval.high < 3_000.0


def test_same_games_same_ranking() -> None:
    first: Ranking = rank(series(6, 1, 3), 0.95)
    assert rank(series(6, 1, 3), 0.95) == first
    assert pickle.loads(pickle.dumps(first)) == first


@pytest.mark.parametrize(
    ("played", "field"),
    [
        (games("aa", [0], [1], [1.0]), "players"),
        (games("abc", [0], [1], [1.0]), "players"),
        (games("ab", [0, 0], [1], [1.0]), "second"),
        (games("ab", [0], [1], []), "scores"),
        (games("ab", [0, 2], [1, 1], [1.0, 1.0]), "first[1]"),
        (games("ab", [0], [-1], [1.0]), "second[0]"),
        (games("ab", [0, 1], [1, 1], [1.0, 1.0]), "second[1]"),
        (games("ab", [0], [1], [0.7]), "scores[0]"),
        (games("ab", [0], [1], [float("nan")]), "scores[0]"),
        (games("ab", [0], [1], [1.0], [1, 2]), "clusters"),
    ],
)
def test_broken_games_name_the_field(played: Games, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        rank(played, 0.95)
    assert caught.value.field == field
