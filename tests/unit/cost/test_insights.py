from services.cost.insights import AnomalyDraft, HourlySpend, SearchLimits, anomalies_of, series_to_watch
from services.cost.spend import EVERYTHING, SpendFilter

USD = 1_000_000_000
LIMITS = SearchLimits(max_series=3, min_impact_nano_usd=USD, max_kept=10)


def test_the_series_that_spend_most_are_watched_beside_the_project() -> None:
    spent = [("acme", "large", 5 * USD), ("acme", "small", 2 * USD), ("other", "one", 3 * USD), ("tiny", "x", 1)]
    assert series_to_watch(spent, LIMITS) == [
        SpendFilter(),
        SpendFilter("acme"),
        SpendFilter("acme", "large"),
        SpendFilter("other"),
    ]
    assert series_to_watch([], LIMITS) == [SpendFilter()]


def test_hours_before_the_first_spend_are_no_history() -> None:
    idle = HourlySpend(EVERYTHING, 0, [0] * 500)
    begins = HourlySpend(EVERYTHING, 0, [0] * 500 + [5 * USD] * 30)
    assert list(anomalies_of(idle, 0, LIMITS)) == list(anomalies_of(begins, 0, LIMITS)) == []


def test_only_hours_to_be_judged_and_worth_their_while_are_told() -> None:
    hour_us = 3_600_000_000
    spend = HourlySpend(SpendFilter("acme", "large"), 0, [4 * USD] * 400 + [40 * USD] + [4 * USD] * 20)
    (found,) = anomalies_of(spend, 400 * hour_us, LIMITS)
    assert (found.start_us, found.observed, found.expected) == (400 * hour_us, 40 * USD, 4 * USD)
    assert (found.impact, found.series) == (36 * USD, "acme/large")
    assert list(anomalies_of(spend, 401 * hour_us, LIMITS)) == []
    large = SearchLimits(max_series=3, min_impact_nano_usd=37 * USD, max_kept=10)
    assert list(anomalies_of(spend, 0, large)) == []


def test_series_are_named_as_people_write_them() -> None:
    names = [AnomalyDraft(*of, 0, 0, 0, 0, 0, 0.5).series for of in (("", ""), ("acme", ""), ("acme", "a/b"))]
    assert names == ["project", "acme", "acme/a/b"]
