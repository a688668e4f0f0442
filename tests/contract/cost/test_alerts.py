"""Alerts on both databases: each once, numbered in the order of the commits, in the transaction of what raises them."""

import asyncio

import pytest
from sqlalchemy import Connection

from services.cost.alerting.alerts import Alert, AlertKind, AnomalyFacts, unpriced
from services.cost.holds import ExpiryPolicy
from services.cost.rollups import DAY_US
from services.cost.store.alerts import AlertStore
from services.runtime.hints import LocalHints
from tests.support.cost import HOUR_US, NOVEMBER_US, order, report, settlement
from tests.support.cost_store import PROJECT, Cost, alert_writer, bookkeeping

LIMIT = 1_000_000
"""1,000 tokens of the model "flat"."""


async def told(cost: Cost, project_id: str = PROJECT) -> list[Alert]:
    """All alerts, oldest first."""
    return await cost.alerts.read_events(project_id, 0, 1_000)


def thresholds(alerts: list[Alert]) -> list[tuple[str, int]]:
    return [(alert.what.period, alert.what.threshold_percent) for alert in alerts]


async def test_each_threshold_fires_once_a_period_under_concurrency_on_several_replicas(cost: Cost) -> None:
    await cost.budget(LIMIT)
    replicas = [bookkeeping(cost.database, max_batch=5) for _ in range(3)]
    work = [replicas[number % 3].report(PROJECT, [report(f"e{number}", tokens=10)]) for number in range(120)]
    await asyncio.gather(*work)
    for replica in replicas:
        await replica.close()
    alerts = await told(cost)
    assert thresholds(alerts) == [("2026-11", 50), ("2026-11", 80), ("2026-11", 100)]
    assert [alert.sequence for alert in alerts] == [1, 2, 3]
    assert await cost.alerts.kept(PROJECT) == (1, 3)


async def test_a_balance_that_falls_and_rises_again_tells_nothing_new_until_the_next_period(cost: Cost) -> None:
    await cost.budget(LIMIT)
    hold = order("a", tokens=600, expires_in_ms=1_000)
    await cost.books.hold(PROJECT, [hold])
    cost.clock.advance(2)
    # Charged at its worst case, then settled for nothing: down again.
    assert (await cost.books.expire(ExpiryPolicy.CHARGE, 10)).expired == 1
    assert thresholds(await told(cost)) == [("2026-11", 50)]
    await cost.books.settle(PROJECT, [settlement("a", tokens=None)])
    # A new process, which remembers nothing.
    anew = bookkeeping(cost.database)
    await anew.report(PROJECT, [report("b", tokens=700)])
    await anew.close()
    assert thresholds(await told(cost)) == [("2026-11", 50)]
    cost.clock.set_now_us(NOVEMBER_US + 20 * DAY_US)
    await cost.books.report(PROJECT, [report("c", tokens=500)])
    assert thresholds(await told(cost)) == [("2026-11", 50), ("2026-12", 50)]


async def test_the_first_refusal_of_a_period_is_told_once(cost: Cost) -> None:
    await cost.budget(LIMIT)
    for number in range(3):
        await cost.books.hold(PROJECT, [order(f"a{number}", tokens=2_000), order(f"b{number}", tokens=3_000)])
    (alert,) = await told(cost)
    assert alert.what.kind is AlertKind.BUDGET_EXHAUSTED
    assert "refused a call that needed up to 0.002" in alert.message()


async def test_a_budget_made_or_changed_in_mid_period_tells_what_it_has_passed(cost: Cost) -> None:
    await cost.books.report(PROJECT, [report("a", tokens=600)])
    budget_id = await cost.budget(LIMIT)
    assert thresholds(await told(cost)) == [("2026-11", 50)]
    await cost.update(budget_id, limit_nano_usd=700_000)
    await cost.update(budget_id, limit_nano_usd=700_000)
    assert thresholds(await told(cost)) == [("2026-11", 50), ("2026-11", 80)]


async def test_unpriced_models_are_told_once_a_day_and_not_without_end(cost: Cost) -> None:
    models = ["a", "b", "a", "c", "d", "e"]
    for number, model in enumerate(models):
        await cost.books.report(PROJECT, [report(f"e{number}", model=f"new-{model}")])
    assert [alert.what.subject for alert in await told(cost)] == ["acme/new-a", "acme/new-b", "acme/new-c"]
    cost.clock.advance(24 * 3600)
    await cost.books.report(PROJECT, [report("late", model="new-a")])
    assert [alert.what.period for alert in await told(cost)] == ["2026-11-18"] * 3 + ["2026-11-19"]


async def test_an_anomaly_is_told_once(cost: Cost) -> None:
    facts = AnomalyFacts(NOVEMBER_US, 5, 2, 1, 3)
    for _ in range(2):
        await AlertStore(cost.database, alert_writer(cost.database)).raise_anomaly(PROJECT, "total", facts)
    await cost.alerts.raise_anomaly(PROJECT, "model=acme/flat", facts)
    alerts = await told(cost)
    assert [alert.what.subject for alert in alerts] == ["total", "model=acme/flat"]
    assert alerts[0].what.facts == facts


async def test_a_transaction_that_fails_tells_nothing(cost: Cost) -> None:
    writer = alert_writer(cost.database)
    draft = unpriced("acme/new", NOVEMBER_US)

    def fail(connection: Connection) -> None:
        writer.raise_new(connection, PROJECT, [draft], NOVEMBER_US)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await cost.database.write(fail)
    assert await told(cost) == []
    assert await cost.alerts.kept(PROJECT) == (1, 0)
    keys = await cost.database.write(writer.raise_new, PROJECT, [draft], NOVEMBER_US)
    writer.committed(keys)
    assert len(await told(cost)) == 1
    assert await cost.database.write(writer.raise_new, PROJECT, [draft], NOVEMBER_US) == []


async def test_watchers_of_the_project_are_woken_after_the_commit(cost: Cost) -> None:
    hints = LocalHints()
    store = AlertStore(cost.database, alert_writer(cost.database, hints))
    with hints.subscribe(store.topic(PROJECT)) as news, hints.subscribe(store.topic("prj_2")) as others:
        await store.raise_anomaly(PROJECT, "total", AnomalyFacts(NOVEMBER_US, 5, 2, 1, 3))
        assert await news.wait(0.0)
        assert not await others.wait(0.0)


async def test_lists_are_filtered_and_paged(cost: Cost) -> None:
    first = await cost.budget(LIMIT)
    await cost.books.report(PROJECT, [report("a", tokens=900), report("b", model="new")])
    every = await cost.alerts.page(PROJECT, kinds=[], budget_id="", before=None, limit=10)
    assert [alert.sequence for alert in every] == [3, 2, 1]
    assert await cost.alerts.page(PROJECT, kinds=[], budget_id="", before=3, limit=1) == every[1:2]
    unpriced_only = await cost.alerts.page(
        PROJECT, kinds=[AlertKind.UNPRICED_MODEL], budget_id="", before=None, limit=10
    )
    assert [alert.budget_id for alert in unpriced_only] == [""]
    of_budget = await cost.alerts.page(PROJECT, kinds=[], budget_id=first, before=None, limit=10)
    assert thresholds(of_budget) == [("2026-11", 80), ("2026-11", 50)]
    assert await cost.alerts.page("prj_2", kinds=[], budget_id="", before=None, limit=10) == []


async def test_what_is_old_goes_and_the_numbers_stay(cost: Cost) -> None:
    await cost.books.report(PROJECT, [report("a", model="new-a"), report("b", model="new-b")])
    cost.clock.advance(3 * 24 * 3600)
    await cost.books.report(PROJECT, [report("c", model="new-c")])
    assert await cost.alerts.prune(2 * DAY_US, 1) == 1
    assert await cost.alerts.kept(PROJECT) == (2, 3)
    assert await cost.alerts.prune(2 * DAY_US, 10) == 1
    assert await cost.alerts.prune(2 * DAY_US, 10) == 0
    assert await cost.alerts.kept(PROJECT) == (3, 3)
    assert await cost.alerts.prune(-HOUR_US, 10) == 1
    assert await cost.alerts.kept(PROJECT) == (4, 3)
