"""How repricings find their events, charge them, and follow each other, on both databases."""

import pytest
from sqlalchemy import Connection, select

from services.cost.pricing.catalogue import Catalogue
from services.cost.pricing.overrides import Override
from services.cost.pricing.prices import Rates, Tariff, Tier
from services.cost.pricing.repricing import BEGINNING, Repricing, RepricingFilter, RepricingState
from services.cost.rollups import DAY_US
from services.cost.store.books import BookKeeper
from services.cost.store.overrides import OverrideStore
from services.cost.store.price_books import PriceBooks
from services.cost.store.repricing import RepricingStore
from services.cost.store.repricing_reader import SCANNED_PER_EVENT
from services.cost.store.retention import HoldRetention
from services.cost.store.tables import balances
from services.runtime.errors import WrongState
from services.runtime.requests import RequestKey
from tests.support.cost import NOVEMBER_US, PriceList, order, report, settlement
from tests.support.cost_store import PROJECT, Cost, alert_writer

CATALOGUE = Catalogue.load()
EVERYTHING = RepricingFilter(NOVEMBER_US - 300 * DAY_US, NOVEMBER_US + 60 * DAY_US)


def store(cost: Cost) -> RepricingStore:
    return RepricingStore(cost.database, BookKeeper(cost.database, PriceList(), alert_writer(cost.database)), CATALOGUE)


async def state_price(cost: Cost, number: int, nano_usd_per_token: int) -> None:
    """A price of "flat", which costs 1,000 nano-USD a token otherwise."""
    tariff = Tariff((Tier(0, Rates(*[nano_usd_per_token * 1_000_000] * 8)),))
    start_us = EVERYTHING.start_us
    made = Override(f"ovr_{number}", PROJECT, "acme", "flat", "", tariff, start_us, 0, None, 0, None)
    overrides = OverrideStore(cost.database, PriceBooks(PriceList()), max_per_project=9)
    await overrides.create(RequestKey(PROJECT, "CreatePriceOverride", ""), b"", made)


async def applied(cost: Cost, repricing_id: str, wanted: RepricingFilter = EVERYTHING, limit: int = 100) -> Repricing:
    """Its last step."""
    repricing = await store(cost).start(PROJECT, repricing_id, f"request of {repricing_id}", wanted)
    while repricing.state is RepricingState.APPLYING:
        repricing = await store(cost).apply(PROJECT, repricing_id, limit)
    return repricing


async def test_a_settled_call_is_charged_where_it_was_held_after_its_hold_is_gone(cost: Cost) -> None:
    await cost.budget(10**9)
    await cost.books.hold(PROJECT, [order("a/1")])
    cost.clock.advance(20 * 86_400)
    await cost.books.settle(PROJECT, [settlement("a/1", tokens=7, occurred_us=cost.clock.now_us())])
    cost.clock.advance(8 * 86_400)
    assert await HoldRetention(cost.database, keep_us=7 * DAY_US).run_once(10) == 1
    await state_price(cost, 1, 3_000)
    await applied(cost, "rpr_1")

    def settled(connection: Connection) -> dict[str, int]:
        rows = connection.execute(select(balances.c.period, balances.c.settled_nano_usd))
        return {period: amount for period, amount in rows if amount}

    assert await cost.database.read(settled) == {"2026-11": 21_000}


async def test_events_of_two_sources_with_one_id_are_two(cost: Cost) -> None:
    await cost.books.report(PROJECT, [report("e1", source="app", tokens=2), report("e1", source="web", tokens=5)])
    await state_price(cost, 1, 3_000)
    assert (await applied(cost, "rpr_1")).difference.new_nano_usd == 21_000
    await state_price(cost, 2, 4_000)
    again = (await applied(cost, "rpr_2")).difference
    assert (again.old_nano_usd, again.new_nano_usd) == (21_000, 28_000)


async def test_a_step_looks_at_few_events_whatever_the_filter_leaves_out(cost: Cost) -> None:
    others = [report(f"e{number}", model="free", occurred_us=NOVEMBER_US + number) for number in range(50)]
    await cost.books.report(PROJECT, [*others, report("last", occurred_us=NOVEMBER_US + 50)])
    await state_price(cost, 1, 3_000)
    wanted = RepricingFilter(EVERYTHING.start_us, EVERYTHING.end_us, model="flat")
    first = await store(cost).look(PROJECT, wanted, 1, BEGINNING, 2)
    assert (first.examined, first.place[2], first.more) == ([], f"e{2 * SCANNED_PER_EVENT - 1}", True)
    second = await store(cost).look(PROJECT, wanted, 1, first.place, 2)
    assert ([one.event.event_id for one in second.examined], second.more) == (["last"], False)
    assert (await applied(cost, "rpr_1", wanted, limit=2)).difference.changed_calls == 1


async def test_repricings_follow_each_other_as_they_began_whatever_their_ids(cost: Cost) -> None:
    await cost.books.report(PROJECT, [report("e1")])
    for number, repricing_id in enumerate(["rpr_b", "rpr_a", "rpr_c"], 1):
        await state_price(cost, number, 1_000 + number)
        await applied(cost, repricing_id)
    listed = await store(cost).page(PROJECT, after=1, limit=5)
    assert [(one.repricing_id, one.number) for one in listed] == [("rpr_a", 2), ("rpr_c", 3)]
    with pytest.raises(WrongState, match=r"\(rpr_a, rpr_c\)"):
        await store(cost).reverse(PROJECT, "rpr_b", 10)
    for repricing_id in ("rpr_c", "rpr_a", "rpr_b"):
        assert (await store(cost).reverse(PROJECT, repricing_id, 10)).state is RepricingState.REVERSED
