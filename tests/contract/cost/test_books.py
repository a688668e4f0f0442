"""The books on both databases: what is posted, what is refused, and that nothing is counted twice."""

import asyncio
import random

import pytest

import services.cost.wiring  # noqa: F401 (loads every module that declares tables)
from services.cost.bookkeeping import Bookkeeping
from services.cost.holds import ExpiryPolicy
from services.cost.ledger import HoldOutcome
from services.cost.periods import QUARTER_US, PeriodKind
from services.cost.rollups import DAY_US
from services.cost.scopes import Scope
from services.cost.spend import Dimension, SpendQuery
from services.cost.store.books import RECENT_MAX
from services.cost.store.budgets import BudgetStore
from services.cost.store.tables import metadata
from services.cost.usage import Attribution
from services.cost.windows import AskedWindow
from services.runtime.errors import AlreadyExists, InvalidField, NotFound
from services.runtime.requests import RequestKey
from tests.support.cost import HOUR_US, NOVEMBER_US, order, report, settlement, worst_case_of
from tests.support.cost_store import PROJECT, Cost, alert_writer, bookkeeping, reasons
from tests.support.databases import schema_differences


async def test_the_migrations_make_the_declared_tables(cost: Cost) -> None:
    assert await schema_differences(cost.database, metadata) == []


async def test_a_hold_lives_through_the_database(cost: Cost) -> None:
    budget_id = await cost.budget(10**6)
    attribution = Attribution("usr_1", "key_1", "run_1", (("team", "research"),))
    orders = [order("a", attribution=attribution), order("b"), order("c", model="free"), order("d", tokens=10**6)]
    outcomes = await cost.books.hold(PROJECT, orders)
    assert reasons(outcomes) == [None, None, None, "BUDGET_EXCEEDED"]
    assert await cost.standing(budget_id) == (0, 2 * worst_case_of(100))
    repeated = await cost.books.hold(PROJECT, [order("a"), order("b", nonce="other")])
    assert reasons(repeated) == [None, "HOLD_NONCE_MISMATCH"]
    settled = await cost.books.settle(PROJECT, [settlement("a", tokens=40), settlement("b", tokens=None)])
    assert [one.cost and one.cost.nano_usd for one in settled] == [40_000, 0]
    assert await cost.books.settle(PROJECT, [settlement("a", tokens=40), settlement("b", tokens=None)]) == settled
    assert await cost.standing(budget_id) == (40_000, 0)
    total = await cost.total()
    assert (total.calls, total.cost_nano_usd, total.counts[5]) == (2, 40_000, 40)
    tags = await cost.spend.summarize(PROJECT, SpendQuery(AskedWindow(), (Dimension.TAG,)))
    assert [(row.keys, row.sums.cost_nano_usd) for row in tags.rows] == [(("",), 0), (("team=research",), 40_000)]


async def test_resolutions_and_tombstones_last(cost: Cost) -> None:
    await cost.books.hold(PROJECT, [order("held"), order("settled"), order("released")])
    await cost.books.settle(PROJECT, [settlement("settled", tokens=3)])
    await cost.books.release(PROJECT, ["released", "never-held"])
    ids = ["held", "settled", "released", "never-held", "unknown"]
    expected = ["held", "settled", "released", "tombstoned", "tombstoned"]
    known = await cost.books.resolve(PROJECT, ids)
    assert [one.state.value for one in known] == expected
    assert await cost.books.resolve(PROJECT, ids) == known
    assert known[1].cost.nano_usd == 3_000
    assert known[1].usage is not None
    assert known[1].usage.output_tokens == 3
    late = await cost.books.hold(PROJECT, [order("unknown"), order("never-held")])
    assert reasons(late) == ["HOLD_TOMBSTONED", "HOLD_TOMBSTONED"]


async def test_projects_do_not_see_each_other(cost: Cost) -> None:
    budget_id = await cost.budget(10**6)
    await cost.books.hold(PROJECT, [order("a")])
    other = await cost.books.settle("prj_2", [settlement("a")])
    assert other[0].error is not None
    assert other[0].error.reason == "NOT_FOUND"
    await cost.books.report("prj_2", [report("e1")])
    assert (await cost.total()).calls == 0
    assert (await cost.total("prj_2")).calls == 1
    for call in (
        cost.budgets.get("prj_2", budget_id),
        cost.budgets.delete("prj_2", budget_id),
        cost.budgets.update(RequestKey("prj_2", "UpdateBudget", ""), b"", budget_id, {"name": "mine"}),
    ):
        with pytest.raises(NotFound):
            await call
    assert await cost.budgets.page("prj_2", Scope(), after_id="", limit=10) == []


async def test_expired_holds_are_charged_until_the_outcome_is_known(cost: Cost) -> None:
    budget_id = await cost.budget(10**6)
    await cost.books.hold(PROJECT, [order("a"), order("b", expires_in_ms=3_600_000)])
    await cost.books.hold("prj_2", [order("a")])
    cost.clock.advance(61)
    assert (await cost.books.expire(ExpiryPolicy.CHARGE, 10)).expired == 2
    assert (await cost.books.expire(ExpiryPolicy.CHARGE, 10)).expired == 0
    assert await cost.standing(budget_id) == (worst_case_of(100), worst_case_of(100))
    assert (await cost.books.resolve(PROJECT, ["a"]))[0].state.value == "expired_charged"
    await cost.books.settle(PROJECT, [settlement("a", tokens=1), settlement("b", tokens=2)])
    assert await cost.standing(budget_id) == (3_000, 0)
    assert (await cost.counted())[2] == 0


async def test_many_holds_at_once_never_overshoot_and_use_the_budget(cost: Cost) -> None:
    """1,000 concurrent calls at 20 times two overlapping budgets, in small and large requests, through two replicas."""
    limit = 50 * worst_case_of(100) + 7
    ids = [await cost.budget(limit), await cost.budget(limit + 10**9, number=2, kind=PeriodKind.DAILY)]
    replica = bookkeeping(cost.database, max_batch=7)
    attempts = [f"a{number}" for number in range(1_000)]

    async def client(books: Bookkeeping, mine: list[str]) -> list[HoldOutcome]:
        size = 1 + len(mine) % 5
        groups = [mine[index : index + size] for index in range(0, len(mine), size)]
        answers = await asyncio.gather(*[books.hold(PROJECT, [order(name) for name in group]) for group in groups])
        return [outcome for answer in answers for outcome in answer]

    clients = [client(replica if number % 2 else cost.books, attempts[number::8]) for number in range(8)]
    outcomes = [outcome for answer in await asyncio.gather(*clients) for outcome in answer]
    granted = [outcome.attempt_id for outcome in outcomes if outcome.error is None]
    assert {one.error.reason for one in outcomes if one.error is not None} == {"BUDGET_EXCEEDED"}
    assert len(granted) == 50
    for budget_id in ids:
        settled, held = await cost.standing(budget_id)
        assert settled == 0
        assert 0.99 * limit <= held <= limit
    await asyncio.gather(*[cost.books.settle(PROJECT, [settlement(name, tokens=100)]) for name in granted])
    assert [await cost.standing(budget_id) for budget_id in ids] == [(50 * 100_000, 0)] * 2
    assert await cost.counted() == (50, 50 * 100_000, 0)
    await replica.close()


async def test_a_replay_three_times_in_any_order_counts_once(cost: Cost) -> None:
    seed = random.randrange(2**32)
    shuffled = random.Random(seed)
    budget_id = await cost.budget(10**12)
    tags = [Attribution(tags=(("team", f"t{number}"),)) for number in range(3)]
    names = [f"a{number}" for number in range(60)]
    orders = [order(name, tokens=300, attribution=tags[index % 3]) for index, name in enumerate(names)]
    await cost.books.hold(PROJECT, orders)
    settlements = [
        settlement(name, tokens=index, occurred_us=NOVEMBER_US - index * HOUR_US) for index, name in enumerate(names)
    ]
    reports = [report(f"e{number}", tokens=number, occurred_us=NOVEMBER_US - number) for number in range(60)]
    seen = []
    for _ in range(3):
        shuffled.shuffle(settlements)
        shuffled.shuffle(reports)
        settling = [cost.books.settle(PROJECT, settlements[start : start + 7]) for start in range(0, 60, 7)]
        reporting = [cost.books.report(PROJECT, reports[start : start + 11]) for start in range(0, 60, 11)]
        await asyncio.gather(*settling, *reporting)
        by_day = await cost.spend.summarize(
            PROJECT, SpendQuery(AskedWindow(), (Dimension.DAY, Dimension.TAG), page_size=1_000)
        )
        seen.append((await cost.total(), await cost.counted(), await cost.standing(budget_id), by_day))
    assert seen[0] == seen[1] == seen[2], f"seed {seed}"
    expected = 2 * sum(range(60)) * 1_000
    assert seen[0][0].cost_nano_usd == expected
    assert seen[0][1] == (120, expected, 0)
    assert seen[0][2] == (expected, 0)


async def test_reports_are_all_or_none(cost: Cost) -> None:
    outcome = await cost.books.report(PROJECT, [report("e1"), report("e2", model="secret"), report("e1")])
    assert (outcome.duplicates, [one.priced for one in outcome.costs]) == (1, [True, False, True])
    with pytest.raises(AlreadyExists) as refused:
        await cost.books.report(PROJECT, [report("e3"), report("e1", tokens=5)])
    assert refused.value.reason == "USAGE_EVENT_MISMATCH"
    with pytest.raises(InvalidField):
        await cost.books.report(PROJECT, [report("e4"), report("e5", tokens=-5)])
    total = await cost.total()
    assert (total.calls, total.unpriced_calls, total.cost_nano_usd) == (2, 1, 100_000)


async def test_a_refused_request_does_not_spoil_the_others_of_its_transaction(cost: Cost) -> None:
    wrong, right = await asyncio.gather(
        cost.books.report(PROJECT, [report("e1", tokens=-1)]),
        cost.books.report(PROJECT, [report("e2")]),
        return_exceptions=True,
    )
    assert isinstance(wrong, InvalidField)
    assert not isinstance(right, BaseException)
    assert (await cost.total()).calls == 1


async def test_a_budget_made_in_the_middle_of_a_month_begins_with_what_was_spent(cost: Cost) -> None:
    month_start_us = NOVEMBER_US // DAY_US * DAY_US - 17 * DAY_US - 45 * 60 * 1_000_000 - 5 * HOUR_US
    inside = report("e1", occurred_us=month_start_us)
    before = report("e2", tokens=7, occurred_us=month_start_us - 1)
    await cost.books.report(PROJECT, [inside, before, report("e3")])
    budget_id = await cost.budget(10**9, time_zone="Asia/Kathmandu")
    assert await cost.standing(budget_id) == (200_000, 0)
    await cost.books.report(PROJECT, [report("e4"), report("e5", occurred_us=month_start_us - QUARTER_US)])
    assert await cost.standing(budget_id) == (300_000, 0)


async def test_balances_are_those_under_the_lock_however_many_were_used_before(cost: Cost) -> None:
    """A keeper asks for the balances of its last transactions before it knows whether it needs them."""
    keys = [f"key_{number}" for number in range(RECENT_MAX + 5)]
    cost.budgets = BudgetStore(cost.database, alert_writer(cost.database), max_per_project=len(keys), max_per_anchor=1)
    ids = [
        await cost.budget(10**6, number=number, scope=Scope(key_id=key_id))
        for number, key_id in enumerate(keys, start=1)
    ]
    other = bookkeeping(cost.database)
    expected = dict.fromkeys(ids, 0)
    for turn, some in enumerate([[0], [0, 1], range(len(keys)), [1], [2, 1], range(20), [3]]):
        books = other if turn % 2 else cost.books
        orders = [order(f"{turn}/{index}", attribution=Attribution(key_id=keys[index])) for index in some]
        assert reasons(await books.hold(PROJECT, orders)) == [None] * len(orders)
        for index in some:
            expected[ids[index]] += worst_case_of(100)
        assert {key[0]: held for key, (_, held) in (await cost.balances()).items()} == expected
    await cost.update(ids[3], scope=Scope(key_id=keys[4], run_id="run_1"))
    assert reasons(await cost.books.hold(PROJECT, [order("moved", attribution=Attribution(key_id=keys[3]))])) == [None]
    assert await cost.standing(ids[3]) == (0, 0)
    await other.close()
