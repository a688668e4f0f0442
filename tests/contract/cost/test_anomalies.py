"""The search for anomalies on both databases, one look at a time."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import update

from services.cost.alerting.alerts import AlertKind
from services.cost.anomaly_search import AnomalySearch, SearchPolicy
from services.cost.events import UsageReport
from services.cost.insights import HOUR_US, LOOK_BACK_HOURS, Anomaly, AnomalyQuery, SearchLimits
from services.cost.rollups import DAY_US, TAIL_EVENTS_MAX
from services.cost.store.anomalies import AnomalyStore
from services.cost.store.rollups import Folder
from services.cost.store.tables import projects
from services.runtime.feeds import Kept
from services.runtime.hints import LocalHints
from services.runtime.liveness import liveness_of
from tests.support.cost import NOVEMBER_US, report
from tests.support.cost_store import PROJECT, Cost

ORIGIN_US = NOVEMBER_US // HOUR_US * HOUR_US
USD_TOKENS = 1_000_000
"""Tokens of "flat" that cost 1 USD."""
LIMITS = SearchLimits(max_series=20, min_impact_nano_usd=1_000_000_000, max_kept=1_000)
POLICY = SearchPolicy(interval_s=60, delay_us=900_000_000, max_projects=10, limits=LIMITS)
ALL = AnomalyQuery(0, NOVEMBER_US + 9 * DAY_US, "", "", 0)


class Insights:
    """A search and what it has found."""

    def __init__(self, cost: Cost, policy: SearchPolicy) -> None:
        self.store = AnomalyStore(cost.database, policy.limits)
        self.alerts = cost.alerts
        liveness = liveness_of(cost.database)
        self.search = AnomalySearch(self.store, self.alerts, liveness, LocalHints(), policy)

    async def found(self, project_id: str = PROJECT) -> list[Anomaly]:
        await self.search.run_once()
        return await self.store.page(project_id, ALL, before=None, limit=100)


@pytest.fixture
def insights(cost: Cost) -> Callable[[SearchPolicy], Insights]:
    return lambda policy: Insights(cost, policy)


def hour(hours_ago: int, usd: float, name: str = "", model: str = "flat") -> UsageReport:
    """What an hour cost."""
    at_us = ORIGIN_US - hours_ago * HOUR_US
    return report(f"{name}{hours_ago}", tokens=round(usd * USD_TOKENS), model=model, occurred_us=at_us)


def weeks(spike_hours_ago: int = 0) -> list[UsageReport]:
    """Three weeks of about 4 USD an hour, until the last full hour."""
    noise = random.Random(1)
    return [hour(ago, 60 if ago == spike_hours_ago else 4 * noise.uniform(0.9, 1.1)) for ago in range(504, 0, -1)]


async def test_late_usage_makes_an_anomaly_of_its_hour_and_changes_nothing_that_was_told(
    cost: Cost, insights: Callable[[SearchPolicy], Insights]
) -> None:
    await cost.books.report(PROJECT, weeks(spike_hours_ago=2))
    ours = insights(POLICY)
    before = await ours.found()
    assert {(one.found.series, one.found.start_us) for one in before} == {
        (series, ORIGIN_US - 2 * HOUR_US) for series in ("project", "acme", "acme/flat")
    }
    # An hour that was told already, and a quiet one of the day before.
    await cost.books.report(PROJECT, [hour(2, 300, "late"), hour(30, 500, "later")])
    cost.clock.advance(3_600)
    after = await ours.found()
    assert [one for one in after if one.sequence <= len(before)] == before
    late = [one for one in after if one.sequence > len(before)]
    assert {(one.found.series, one.found.start_us) for one in late} == {
        (series, ORIGIN_US - 30 * HOUR_US) for series in ("project", "acme", "acme/flat")
    }
    cost.clock.advance(3_600)
    assert await ours.found() == after


async def test_an_hour_waits_for_usage_that_is_reported_late(
    cost: Cost, insights: Callable[[SearchPolicy], Insights]
) -> None:
    await cost.books.report(PROJECT, weeks(spike_hours_ago=1))
    ours = insights(POLICY)
    # The hour is over, but for less than a quarter of an hour.
    assert await ours.found() == []
    cost.clock.advance(900)
    assert {one.found.start_us for one in await ours.found()} == {ORIGIN_US - HOUR_US}


async def test_each_anomaly_is_an_alert_once(cost: Cost, insights: Callable[[SearchPolicy], Insights]) -> None:
    await cost.books.report(PROJECT, weeks(spike_hours_ago=2))
    ours = insights(POLICY)
    (search,) = await ours.store.due(POLICY.delay_us, 10)
    found = [one.found for one in await ours.found()]
    # Another replica has searched the same hours.
    assert not await ours.store.record(search, found)
    for draft in found:
        await ours.search.tell(PROJECT, draft)
    told = await ours.alerts.page(PROJECT, kinds=[AlertKind.ANOMALY], budget_id="", before=None, limit=10)
    assert {one.what.subject for one in told} == {"project", "acme", "acme/flat"}
    assert len(told) == len(found) == 3


async def test_the_oldest_anomalies_go_first(cost: Cost, insights: Callable[[SearchPolicy], Insights]) -> None:
    await cost.books.report(PROJECT, weeks(spike_hours_ago=2))
    ours = insights(replace(POLICY, limits=replace(LIMITS, max_kept=2)))
    assert [one.sequence for one in await ours.found()] == [3, 2]
    assert await ours.store.kept(PROJECT) == Kept(2, 3)
    assert [one.sequence for one in await ours.store.read_events(PROJECT, 2, 10)] == [3]


@pytest.mark.parametrize(
    ("limits", "series"),
    [
        (replace(LIMITS, max_series=0), {"project"}),
        (replace(LIMITS, max_series=1), {"project", "acme"}),
        (replace(LIMITS, min_impact_nano_usd=57_000_000_000), set()),
    ],
)
async def test_what_is_watched_and_told_is_limited(
    cost: Cost, insights: Callable[[SearchPolicy], Insights], limits: SearchLimits, series: set[str]
) -> None:
    await cost.books.report(PROJECT, weeks(spike_hours_ago=2))
    found = await insights(replace(POLICY, limits=limits)).found()
    assert {one.found.series for one in found} == series


async def test_projects_take_turns_and_know_nothing_of_each_other(
    cost: Cost, insights: Callable[[SearchPolicy], Insights]
) -> None:
    await cost.books.report(PROJECT, weeks(spike_hours_ago=2))
    await cost.books.report("prj_2", weeks())
    ours = insights(replace(POLICY, max_projects=1))
    assert [await ours.search.run_once() for _ in range(3)] == [1, 1, 0]
    assert len(await ours.found()) == 3
    assert await ours.found("prj_2") == []


async def test_a_project_with_a_backlog_is_searched_when_it_is_folded(
    cost: Cost, insights: Callable[[SearchPolicy], Insights]
) -> None:
    await cost.books.report(PROJECT, weeks(spike_hours_ago=2))
    more = projects.c.event_sequence + TAIL_EVENTS_MAX
    await cost.database.write(lambda connection: connection.execute(update(projects).values(event_sequence=more)))
    ours = insights(POLICY)
    assert await ours.search.run_once() == 0
    while await Folder(cost.database, max_events=200_000).fold(PROJECT):
        pass
    assert len(await ours.found()) == 3


async def test_hours_that_are_long_gone_are_not_judged(
    cost: Cost, insights: Callable[[SearchPolicy], Insights]
) -> None:
    await cost.books.report(PROJECT, weeks(spike_hours_ago=LOOK_BACK_HOURS + 2))
    assert await insights(POLICY).found() == []
