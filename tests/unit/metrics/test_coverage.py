"""How often 95 % intervals hold the truth and tests err: a few points of the grid of `bench/statistics.py`."""

import numpy as np
import pytest

from bench.statistics_cases import CASES, TESTS, Case

SIMULATIONS = 600


def share(case: Case, simulations: int = SIMULATIONS) -> float:
    generator = np.random.default_rng(11)
    return sum(case.happens(generator) for _ in range(simulations)) / simulations


def named(kind: str, name: str) -> Case:
    return next(case for case in (CASES | TESTS)[kind] if case.name == name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("rate", "50 with rate 0.95"),
        ("rate, clustered", "20 x 5, correlation 0.3, rate 0.5"),
        ("mean", "10 of normal"),
        ("mean between bounds", "50 of beta(8, 2)"),
        ("mean, clustered", "normal, 10 clusters of 1 - 8, correlation 0.5"),
        ("quantile", "0.95 of 50 log-normal"),
        ("quantile", "0.5 of 20 exponential"),
        ("quantile, clustered", "0.9 of 20 x 5, correlation 0.1"),
        ("difference of rates, paired", "100 pairs, 0.9 against 0.8, correlation 0.5"),
        ("difference of means, paired", "20 pairs, beta scores"),
        ("difference with repeats, paired", "20 prompts x 5, pass or fail"),
    ],
)
def test_intervals_hold_the_truth(kind: str, name: str) -> None:
    # With 600 draws a true 95 % shows as 92.2 % - 97.6 % in 997 of 1,000 seeds.
    assert 0.922 <= share(named(kind, name)) <= 0.985


def test_ratings_hold_the_truth() -> None:
    assert 0.85 <= share(named("rating", "2 players, 30 prompts, 200 Elo apart"), 60) <= 1.0


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("McNemar mid-p", "50 pairs, 0.9 against 0.9, correlation 0.0"),
        ("paired t", "10 pairs, log-normal"),
        ("paired t, repeats", "20 prompts x 3, scores"),
    ],
)
def test_paired_tests_seldom_see_what_is_not_there(kind: str, name: str) -> None:
    # A true 5 % shows as more than 7.7 % in one of 1,000 seeds.
    assert share(named(kind, name)) <= 0.077
