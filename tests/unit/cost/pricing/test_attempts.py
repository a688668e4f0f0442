"""What attempts can cost and did cost, where prices change and tiers have none."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost.budgets import Budget
from services.cost.events import HoldOrder, Settlement
from services.cost.holds import Hold, HoldState
from services.cost.ledger import Books, Ledger
from services.cost.pricing.attempts import CALL_MAX_NANO_USD, HELD_VERSION, cost_of, most_of
from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.overrides import Override, ProjectPrices
from services.cost.pricing.prices import DAY_US, DatedTariff, ModelPrice, Quote, Rates, Tariff, Tier
from services.cost.standings import Standings
from services.cost.usage import Attribution, Usage
from tests.support.cost import HOUR_US, NOVEMBER_US, USD, PriceList, budget

MINUTE_US = 60_000_000
MIDNIGHT_US = NOVEMBER_US - NOVEMBER_US % DAY_US


def flat(usd_per_million: int, *, step_nano_usd: int = 0) -> Tariff:
    return Tariff((Tier(0, Rates(*[usd_per_million * USD] * 8)),), step_nano_usd=step_nano_usd)


def override(tariff: Tariff, *, effective_us: int, ended_us: int | None = None, tier: str = "") -> Override:
    return Override("ovr_1", "prj_1", "acme", "own", tier, tariff, effective_us, effective_us, ended_us, 1, None)


class Dated:
    """One model with the tariffs that it is given."""

    def __init__(self, *tariffs: DatedTariff) -> None:
        self._price = ModelPrice("acme", "own", "v1", tariffs)

    def quote(self, provider: str, models: Sequence[str], service_tier: str, at_us: int) -> Quote | None:
        tariff = self._price.at(at_us, service_tier)
        return None if tariff is None else Quote(tariff, "v1")

    def changes(self, provider: str, model: str, service_tier: str, after_us: int, until_us: int) -> Sequence[int]:
        return self._price.changes(service_tier, after_us, until_us)

    def name_of(self, provider: str, model: str) -> tuple[str, str]:
        return provider, model


def order(*, expires_in_ms: int = 3_600_000, steps_max: int = 0, tier: str = "") -> HoldOrder:
    return HoldOrder("a", "n", "acme", "own", 0, 100, Attribution(), expires_in_ms, tier, steps_max)


def hold(*, priced: bool = True, tier: str = "") -> Hold:
    return Hold("a", "n", HoldState.HELD, "acme", "own", Attribution(), 777, priced, NOVEMBER_US, NOVEMBER_US, tier)


def settlement(*, tier: str = "", model: str = "") -> Settlement:
    return Settlement("a", Usage(output_tokens=50), model, None, succeeded=True, service_tier=tier)


def ledger(prices: PriceSource, *budgets: Budget) -> Ledger:
    return Ledger(Books("prj_1", standings=Standings.of(budgets)), prices, NOVEMBER_US)


def test_a_price_that_rises_before_the_hold_expires_is_held() -> None:
    rising = [override(flat(1), effective_us=0), override(flat(5), effective_us=NOVEMBER_US + MINUTE_US)]
    prices = ProjectPrices(PriceList(), rising)
    assert most_of(order(expires_in_ms=59_999), prices, NOVEMBER_US) == 100 * 1_000 + 4
    assert most_of(order(expires_in_ms=60_000), prices, NOVEMBER_US) == 100 * 5_000 + 4
    assert most_of(order(), prices, NOVEMBER_US + MINUTE_US) == 100 * 5_000 + 4


def test_a_call_that_leaves_the_tier_open_holds_the_dearest_and_is_billed_by_what_answers() -> None:
    tiers = {"": 2, "flex": 1, "priority": 9, "batch": 50}
    prices = ProjectPrices(PriceList(), [override(flat(usd), effective_us=0, tier=tier) for tier, usd in tiers.items()])
    assert most_of(order(tier="auto"), prices, NOVEMBER_US) == 100 * 9_000 + 4
    books = ledger(prices)
    assert books.hold(order(tier="auto")).held_nano_usd == 100 * 9_000 + 4
    settled = books.settle(settlement(tier="flex")).cost
    assert settled is not None
    assert settled.nano_usd == 50_000
    silent = ledger(prices)
    silent.hold(order(tier="auto"))
    unsaid = silent.settle(settlement()).cost
    assert unsaid is not None
    assert unsaid.nano_usd == 100_000
    # What a tier costs is no price of the model.
    only_priority = ProjectPrices(PriceList(), [override(flat(9), effective_us=0, tier="priority")])
    assert most_of(order(tier="auto"), only_priority, NOVEMBER_US) is None


@given(st.integers(0, DAY_US), st.integers(1, 86_400_000), st.integers(0, 3 * DAY_US))
def test_no_price_until_a_hold_expires_is_above_what_is_held(start_us: int, expires_in_ms: int, later: int) -> None:
    now_us = MIDNIGHT_US + start_us
    prices = Dated(
        DatedTariff(flat(2)),
        DatedTariff(flat(1), daily_us=(20 * HOUR_US, 4 * HOUR_US)),
        DatedTariff(flat(7), starts_us=MIDNIGHT_US + DAY_US + HOUR_US),
    )
    at_us = now_us + later % (expires_in_ms * 1_000 + 1)
    quote = prices.quote("acme", ("own",), "", at_us)
    most = most_of(order(expires_in_ms=expires_in_ms), prices, now_us)
    assert quote is not None
    assert most is not None
    assert most >= quote.tariff.tiers[0].rates.output * 100 // 1_000_000


def test_what_had_a_price_when_it_was_held_is_never_free() -> None:
    prices = ProjectPrices(PriceList(), [override(flat(2), effective_us=NOVEMBER_US)])
    unknown_tier, _ = cost_of(hold(), settlement(tier="priority"), NOVEMBER_US, prices)
    assert (unknown_tier.nano_usd, unknown_tier.priced) == (100_000, True)
    # The caller's clock is an hour behind, where the model had no price yet.
    behind, _ = cost_of(hold(), settlement(), NOVEMBER_US - HOUR_US, prices)
    assert behind == unknown_tier
    ended = ProjectPrices(PriceList(), [override(flat(2), effective_us=0, ended_us=NOVEMBER_US + MINUTE_US)])
    assert cost_of(hold(), settlement(), NOVEMBER_US + HOUR_US, ended)[0].nano_usd == 100_000
    gone, parts = cost_of(hold(), settlement(), NOVEMBER_US, PriceList())
    assert (gone.nano_usd, gone.priced, gone.price_version) == (777, True, HELD_VERSION)
    assert parts.total_nano_usd == 777


def test_what_had_no_price_stays_unpriced_and_what_answered_sets_the_price() -> None:
    assert not cost_of(hold(priced=False), settlement(), NOVEMBER_US, PriceList())[0].priced
    assert cost_of(hold(), settlement(model="flat"), NOVEMBER_US, PriceList())[0].nano_usd == 50_000
    tiered = ProjectPrices(
        PriceList(), [override(flat(2), effective_us=0), override(flat(9), effective_us=0, tier="priority")]
    )
    assert cost_of(hold(), settlement(tier="priority"), NOVEMBER_US, tiered)[0].nano_usd == 450_000


def test_amounts_that_cannot_be_counted_are_refused() -> None:
    dear = ProjectPrices(PriceList(), [override(flat(1, step_nano_usd=100 * USD), effective_us=0)])
    books = ledger(dear, budget(10**15, soft=True))
    refused = books.hold(order(steps_max=100_000))
    assert refused.error is not None
    assert "10,000,000 USD" in refused.error.message
    assert not books.new_holds
    most = books.hold(order(steps_max=9_999))
    assert most.error is None
    assert most.held_nano_usd <= CALL_MAX_NANO_USD
    used = Settlement("a", Usage(steps=20_000), "", None, succeeded=True)
    settled = books.settle(used)
    assert settled.error is not None
    assert settled.error.reason == "INVALID_FIELD"
    assert books.books.holds["a"].live
    with pytest.raises(KeyError):
        books.books.events["gateway", "a"]
