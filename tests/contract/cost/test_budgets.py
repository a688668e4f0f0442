"""Budgets on both databases: what they begin with, how they change, which calls they count."""

import pytest
from sqlalchemy import Connection

from services.cost.budgets import Balance
from services.cost.holds import ExpiryPolicy
from services.cost.periods import PeriodKind
from services.cost.rollups import DAY_US
from services.cost.scopes import Scope
from services.cost.store import budget_books
from services.cost.store.openings import SpentBefore, put_opening_balances, spent_before
from services.cost.usage import Attribution
from services.runtime.errors import AlreadyExists, NotFound, ResourceExhausted
from services.runtime.requests import RequestKey
from tests.support.cost import HOUR_US, NOVEMBER_US, budget, order, report, settlement, worst_case_of
from tests.support.cost_store import PROJECT, Cost, reasons

HELD = worst_case_of(100)
ANNE = Attribution("usr_1", "key_1", "run_1", (("stage", "test"), ("team", "research")))
BEN = Attribution("usr_2", "key_1", "run_2", (("team", "research"),))


async def test_budgets_are_made_once_changed_and_deleted(cost: Cost) -> None:
    key = RequestKey(PROJECT, "CreateBudget", "req-1")
    wanted = budget(500, budget_id="bud_x", scope=Scope(tag="team=research"), kind=PeriodKind.WEEKLY, soft=True)
    first = await cost.budgets.create(key, b"payload", wanted)
    again = await cost.budgets.create(key, b"payload", budget(500, budget_id="bud_y"))
    assert again == first == await cost.budgets.get(PROJECT, "bud_x")
    assert first == Balance(wanted, wanted.period_at(NOVEMBER_US))
    with pytest.raises(AlreadyExists):
        await cost.budgets.create(key, b"other payload", wanted)
    changed = await cost.update("bud_x", name="new", limit_nano_usd=7, soft=False, thresholds_percent=(10, 90))
    assert changed == await cost.budgets.get(PROJECT, "bud_x")
    owner = changed.budget
    assert (owner.name, owner.limit_nano_usd, owner.soft, owner.thresholds_percent) == ("new", 7, False, (10, 90))
    assert (owner.scope, owner.kind) == (wanted.scope, wanted.kind)
    await cost.budgets.delete(PROJECT, "bud_x")
    with pytest.raises(NotFound):
        await cost.budgets.delete(PROJECT, "bud_x")
    assert await cost.balances() == {}


async def test_what_is_spent_while_the_past_is_summed_is_counted_in(cost: Cost) -> None:
    """The past is summed before the project is locked; what comes until then has to be neither lost nor doubled."""
    scope = Scope(user_id="usr_1", tag="team=research")
    await cost.books.report(PROJECT, [report("before", attribution=ANNE), report("other", attribution=BEN)])
    new = budget(10**9, scope=scope)

    def look(connection: Connection) -> SpentBefore:
        return spent_before(connection, new, NOVEMBER_US)

    def put(connection: Connection, before: SpentBefore) -> None:
        put_opening_balances(connection, cost.database, new, before)

    before = await cost.database.read(look)
    assert before.sequence == 2
    await cost.books.report(PROJECT, [report("since", tokens=7, attribution=ANNE), report("more", attribution=BEN)])
    await cost.books.report(PROJECT, [report("past", attribution=ANNE, occurred_us=NOVEMBER_US - 40 * DAY_US)])
    await cost.database.write(put, before)
    assert await cost.balances() == {("bud_1", "2026-11"): (107_000, 0)}


async def test_what_a_replica_remembers_of_budgets_is_as_good_as_new(cost: Cost) -> None:
    async def refused(name: str) -> list[str | None]:
        return reasons(await cost.books.hold(PROJECT, [order(name, attribution=ANNE)]))

    assert await refused("none") == [None]
    await cost.budget(HELD, scope=Scope(user_id="usr_1"))
    assert await refused("used up") == ["BUDGET_EXCEEDED"]
    await cost.update("bud_1", limit_nano_usd=2 * HELD)
    assert await refused("raised") == [None]
    await cost.update("bud_1", scope=Scope(user_id="usr_2"))
    assert await refused("of another") == [None]
    await cost.budget(HELD, number=2, scope=Scope(run_id="run_1"))
    assert await refused("of the run") == ["BUDGET_EXCEEDED"]
    await cost.budgets.delete(PROJECT, "bud_2")
    assert await refused("deleted") == [None]


@pytest.mark.parametrize("whole_max", [1, 2])
async def test_the_memory_of_budgets_is_bounded(cost: Cost, monkeypatch: pytest.MonkeyPatch, whole_max: int) -> None:
    monkeypatch.setattr(budget_books, "WHOLE_MAX", whole_max)
    monkeypatch.setattr(budget_books, "PROJECTS_CACHED_MAX", 1)
    monkeypatch.setattr(budget_books, "ANCHORS_CACHED_MAX", 7)
    await cost.budget(3 * HELD)
    await cost.budget(1, number=2, scope=Scope(user_id="usr_9"))
    for number in range(5):
        some = Attribution(f"usr_{number}", f"key_{number}")
        await cost.books.hold(PROJECT, [order(f"a{number}", attribution=some)])
    assert await cost.standing("bud_1") == (0, 3 * HELD)


async def test_budgets_are_bounded_and_paged_and_found_by_scope(cost: Cost) -> None:
    made = [await cost.budget(1_000, number=number, kind=kind) for number, kind in enumerate(list(PeriodKind)[:3])]
    with pytest.raises(ResourceExhausted, match="BUDGETS_PER_ANCHOR"):
        await cost.budget(1_000, number=4, kind=PeriodKind.TOTAL)
    made.append(await cost.budget(1_000, number=5, scope=Scope(user_id="usr_1")))
    made.append(await cost.budget(1_000, number=6, scope=Scope(user_id="usr_1", tag="team=research")))
    with pytest.raises(ResourceExhausted, match="BUDGETS_PER_PROJECT") as refused:
        await cost.budget(1_000, number=7, scope=Scope(user_id="usr_2"))
    assert refused.value.reason == "LIMIT_REACHED"
    first = await cost.budgets.page(PROJECT, Scope(), after_id="", limit=2)
    rest = await cost.budgets.page(PROJECT, Scope(), after_id=first[-1].budget.budget_id, limit=9)
    assert [balance.budget.budget_id for balance in [*first, *rest]] == made
    of_user = await cost.budgets.page(PROJECT, Scope(user_id="usr_1"), after_id="", limit=9)
    assert [balance.budget.budget_id for balance in of_user] == ["bud_5", "bud_6"]
    of_both = await cost.budgets.page(PROJECT, Scope(user_id="usr_1", tag="team=research"), after_id="", limit=9)
    assert [balance.budget.budget_id for balance in of_both] == ["bud_6"]
    assert await cost.budgets.page(PROJECT, Scope(run_id="run_1"), after_id="", limit=9) == []


async def test_two_budgets_never_have_the_same_scope_and_kind_of_period(cost: Cost) -> None:
    await cost.budget(1_000, scope=Scope(user_id="usr_1"))
    with pytest.raises(AlreadyExists, match="overlap") as refused:
        await cost.budget(2_000, number=2, scope=Scope(user_id="usr_1"), soft=True, time_zone="Asia/Kathmandu")
    assert (refused.value.reason, refused.value.metadata["budget_id"]) == ("BUDGET_OVERLAPS", "bud_1")
    await cost.budget(2_000, number=2, scope=Scope(user_id="usr_1"), kind=PeriodKind.DAILY)
    await cost.budget(3_000, number=3, scope=Scope(user_id="usr_2"))
    with pytest.raises(AlreadyExists):
        await cost.update("bud_3", scope=Scope(user_id="usr_1"))
    assert (await cost.budgets.get(PROJECT, "bud_3")).budget.scope == Scope(user_id="usr_2")


async def test_a_lower_limit_refuses_a_higher_admits_and_a_deleted_budget_frees(cost: Cost) -> None:
    budget_id = await cost.budget(10**6)
    await cost.books.hold(PROJECT, [order("a")])
    assert (await cost.update(budget_id, limit_nano_usd=10)).remaining_nano_usd == 0
    assert reasons(await cost.books.hold(PROJECT, [order("b")])) == ["BUDGET_EXCEEDED"]
    await cost.update(budget_id, limit_nano_usd=2 * HELD)
    assert reasons(await cost.books.hold(PROJECT, [order("b"), order("c")])) == [None, "BUDGET_EXCEEDED"]
    await cost.update(budget_id, soft=True)
    assert reasons(await cost.books.hold(PROJECT, [order("c")])) == [None]
    assert await cost.standing(budget_id) == (0, 3 * HELD)
    await cost.update(budget_id, soft=False)
    assert reasons(await cost.books.hold(PROJECT, [order("d")])) == ["BUDGET_EXCEEDED"]
    await cost.budgets.delete(PROJECT, budget_id)
    assert reasons(await cost.books.hold(PROJECT, [order("d")])) == [None]
    settled = await cost.books.settle(PROJECT, [settlement("a"), settlement("b")])
    assert [one.error for one in settled] == [None, None]


async def test_every_matching_budget_is_charged_and_no_other(cost: Cost) -> None:
    scopes = [Scope(run_id="run_1"), Scope(tag="team=research"), Scope("usr_1", model="acme/flat"), Scope("usr_2")]
    for number, scope in enumerate(scopes):
        await cost.budget(10**9, number=number, scope=scope, kind=PeriodKind.TOTAL)
    await cost.books.hold(PROJECT, [order("a", attribution=ANNE), order("b", attribution=BEN), order("c")])
    standing = [await cost.standing(f"bud_{number}") for number in range(4)]
    assert standing == [(0, HELD), (0, 2 * HELD), (0, HELD), (0, HELD)]
    await cost.books.settle(PROJECT, [settlement("a", tokens=40), settlement("b", tokens=2)])
    await cost.books.report(PROJECT, [report("e1", tokens=5, attribution=ANNE, model="free"), report("e2")])
    standing = [await cost.standing(f"bud_{number}") for number in range(4)]
    assert standing == [(40_000, 0), (42_000, 0), (40_000, 0), (2_000, 0)]


async def test_one_narrow_budget_refuses_for_all_and_nothing_is_reserved(cost: Cost) -> None:
    wide = await cost.budget(10**9)
    narrow = await cost.budget(HELD - 1, number=2, scope=Scope(run_id="run_1"), kind=PeriodKind.TOTAL)
    outcomes = await cost.books.hold(PROJECT, [order("a", attribution=ANNE), order("b", attribution=BEN)])
    assert reasons(outcomes) == ["BUDGET_EXCEEDED", None]
    assert outcomes[0].error is not None
    assert outcomes[0].error.metadata["budget_id"] == narrow
    assert (await cost.standing(wide), await cost.standing(narrow)) == ((0, HELD), (0, 0))


async def test_a_budget_made_in_mid_period_begins_with_all_that_its_scope_has_taken(cost: Cost) -> None:
    """Spent before it, held by calls under way, and charged for calls whose outcome is unknown."""
    await cost.books.hold(PROJECT, [order("lost", attribution=ANNE), order("foreign", attribution=BEN)])
    cost.clock.advance(61)
    await cost.books.expire(ExpiryPolicy.CHARGE, 10)
    await cost.books.hold(PROJECT, [order("live", attribution=ANNE), order("done", attribution=ANNE), order("none")])
    await cost.books.settle(PROJECT, [settlement("done", tokens=7)])
    last_month = report("e1", tokens=5, attribution=ANNE, occurred_us=NOVEMBER_US - 20 * DAY_US)
    await cost.books.report(PROJECT, [last_month, report("e2", tokens=3, attribution=ANNE)])
    monthly = await cost.budget(10**9, scope=Scope(user_id="usr_1", tag="stage=test"))
    total = await cost.budget(10**9, number=2, scope=Scope(user_id="usr_1"), kind=PeriodKind.TOTAL)
    assert await cost.standing(monthly) == (HELD + 10_000, HELD)
    assert await cost.standing(total) == (HELD + 15_000, HELD)
    await cost.books.settle(PROJECT, [settlement("live", tokens=1), settlement("lost", tokens=2)])
    await cost.books.settle(PROJECT, [settlement("foreign", tokens=9), settlement("none", tokens=9)])
    assert await cost.standing(monthly) == (13_000, 0)
    assert await cost.standing(total) == (18_000, 0)


async def test_a_new_scope_makes_a_budget_begin_anew(cost: Cost) -> None:
    budget_id = await cost.budget(10**9, scope=Scope(user_id="usr_1"))
    await cost.books.hold(PROJECT, [order("a", attribution=ANNE), order("b", attribution=BEN)])
    await cost.books.report(PROJECT, [report("e1", tokens=5, attribution=BEN)])
    assert await cost.standing(budget_id) == (0, HELD)
    changed = await cost.update(budget_id, scope=Scope(user_id="usr_2"))
    assert (changed.settled_nano_usd, changed.held_nano_usd) == (5_000, HELD)
    await cost.books.settle(PROJECT, [settlement("a", tokens=90), settlement("b", tokens=1)])
    assert await cost.standing(budget_id) == (6_000, 0)
    same = await cost.update(budget_id, scope=Scope(user_id="usr_2"))
    assert (same.budget, same.settled_nano_usd) == (changed.budget, 6_000)


async def test_usage_told_ahead_of_its_period_counts_in_a_budget_made_after_it(cost: Cost) -> None:
    cost.clock.advance((DAY_US - NOVEMBER_US % DAY_US) // 1_000_000 - 60)
    ahead_us = cost.clock.now_us() + 120_000_000
    await cost.books.report(PROJECT, [report("e1", occurred_us=ahead_us), report("e2", tokens=2)])
    budget_id = await cost.budget(10**9, kind=PeriodKind.DAILY)
    assert await cost.standing(budget_id) == (2_000, 0)
    cost.clock.advance(120)
    assert await cost.standing(budget_id) == (100_000, 0)


@pytest.mark.parametrize("kind", list(PeriodKind))
async def test_holds_are_charged_to_the_period_in_which_they_were_made(cost: Cost, kind: PeriodKind) -> None:
    budget_id = await cost.budget(10**9, kind=kind, time_zone="Asia/Kathmandu")
    first = (await cost.budgets.get(PROJECT, budget_id)).period
    ids = ["settled", "released", "expired", "corrected"]
    await cost.books.hold(PROJECT, [order(name, expires_in_ms=1_000) for name in ids])
    if kind is not PeriodKind.TOTAL:
        cost.clock.advance((first.ends_us - NOVEMBER_US) // 1_000_000)
    await cost.books.settle(PROJECT, [settlement("settled", tokens=1, occurred_us=cost.clock.now_us())])
    await cost.books.release(PROJECT, ["released"])
    cost.clock.advance(1)
    await cost.books.expire(ExpiryPolicy.CHARGE, 10)
    await cost.books.settle(PROJECT, [settlement("corrected", tokens=4)])
    await cost.books.report(PROJECT, [report("e1", tokens=8, occurred_us=NOVEMBER_US)])
    now = await cost.budgets.get(PROJECT, budget_id)
    charged = 1_000 + 4_000 + 8_000 + HELD
    assert (await cost.balances())[budget_id, first.key] == (charged, 0)
    if kind is PeriodKind.TOTAL:
        assert (now.settled_nano_usd, now.period) == (charged, first)
    else:
        assert (now.settled_nano_usd, now.held_nano_usd, now.period.starts_us) == (0, 0, first.ends_us)


async def test_a_call_touches_the_budgets_at_its_own_anchors_only(cost: Cost) -> None:
    for number in range(4):
        await cost.budget(1, number=number, scope=Scope(user_id=f"usr_{number + 10}"))
    await cost.budget(10**9, number=9, scope=Scope(user_id="usr_1"))
    assert reasons(await cost.books.hold(PROJECT, [order("a", attribution=ANNE)])) == [None]
    touched = {key: amounts for key, amounts in (await cost.balances()).items() if amounts != (0, 0)}
    assert touched == {("bud_9", "2026-11"): (0, HELD)}


async def test_a_late_report_leaves_periods_before_the_budget_alone(cost: Cost) -> None:
    budget_id = await cost.budget(10**9)
    await cost.books.report(PROJECT, [report("e1", occurred_us=NOVEMBER_US - 40 * DAY_US - HOUR_US)])
    assert list(await cost.balances()) == [(budget_id, "2026-11")]
