"""What a repricing makes of events: after it they cost what the prices say, and its opposite leaves nothing behind."""

from hypothesis import given
from hypothesis import strategies as st

from services.cost.events import FREE, UNPRICED, Cost, UsageEvent
from services.cost.pricing.prices import Breakdown, Quote, Rates, Tariff, Tier, price
from services.cost.pricing.repricing import Adjustment, Difference, Standing, adjustment_of, standing_of
from services.cost.usage import Attribution, Usage

KEY = ("app", "e1")


class OnePrice:
    """Every model costs the same from a time on; None is no price."""

    def __init__(self, rate: int | None, from_us: int = 0) -> None:
        self.from_us = from_us
        self.tariff = None if rate is None else Tariff((Tier(0, Rates(*[rate] * 8)),), request_nano_usd=3)

    def quote(self, provider: str, models: object, service_tier: str, at_us: int) -> Quote | None:
        return None if self.tariff is None or at_us < self.from_us else Quote(self.tariff, "new")

    def changes(self, provider: str, model: str, service_tier: str, after_us: int, until_us: int) -> list[int]:
        return []

    def name_of(self, provider: str, model: str) -> tuple[str, str]:
        return provider, model


def event(cost: Cost, tokens: int = 100) -> UsageEvent:
    return UsageEvent(
        source="app",
        event_id="e1",
        digest=b"1",
        provider="acme",
        model="m",
        provider_model="",
        attribution=Attribution("usr_1", tags=(("team", "a"),)),
        usage=Usage(output_tokens=tokens),
        succeeded=True,
        cost=cost,
        breakdown=Breakdown(),
        held_nano_usd=0,
        occurred_us=5,
        charged_us=4,
        recorded_us=6,
    )


costs = st.one_of(st.just(UNPRICED), st.integers(0, 10**12).map(lambda amount: Cost(amount, True, "old")))
rates = st.one_of(st.none(), st.integers(0, 10**12))


@given(costs, st.integers(0, 10**6), st.lists(rates, max_size=6))
def test_any_history_of_repricings_can_be_taken_back(cost: Cost, tokens: int, history: list[int | None]) -> None:
    used = event(cost, tokens)
    before = standing_of(used, {})
    made: list[Adjustment] = []
    for rate in history:
        prices = OnePrice(rate)
        change = adjustment_of(used, _standing(used, made), prices)
        if change is not None:
            made.append(change)
        if prices.tariff is not None:
            assert _standing(used, made) == Standing(price(used.usage, prices.tariff).total_nano_usd, priced=True)
    assert all(change.unpriced_calls == 0 for change in made[1:])
    while made:
        undone = made.pop()
        assert _standing(used, [*made, undone, undone.opposite()]) == _standing(used, made)
    assert _standing(used, made) == before


def _standing(used: UsageEvent, made: list[Adjustment]) -> Standing:
    sums = sum(one.nano_usd for one in made), sum(one.unpriced_calls for one in made)
    return standing_of(used, {KEY: sums})


def test_an_adjustment_is_charged_to_whom_and_when_the_event_was() -> None:
    used = event(UNPRICED)
    change = adjustment_of(used, standing_of(used, {}), OnePrice(1_000_000))
    assert change is not None
    row = change.record("rpr_1/1", now_us=9)
    assert (row.calls, row.unpriced_calls, row.usage.output_tokens, row.cost.nano_usd) == (0, -1, 0, 103)
    assert (row.occurred_us, row.charged_us, row.attribution, row.recorded_us) == (5, 4, used.attribution, 9)
    assert change.opposite().record("rpr_1/1r", 9).unpriced_calls == 1


def test_what_has_no_new_price_or_took_nothing_stays() -> None:
    used = event(Cost(7, True, "old"))
    assert adjustment_of(used, standing_of(used, {}), OnePrice(None)) is None
    free = event(FREE)
    assert adjustment_of(free, standing_of(free, {}), OnePrice(1_000_000)) is None


def test_a_call_that_a_slow_clock_puts_before_its_hold_is_priced_as_of_its_hold() -> None:
    for occurred_us, charged_us, priced in ((5, 4, True), (3, 5, True), (4, 4, False)):
        used = event(UNPRICED)._replace(occurred_us=occurred_us, charged_us=charged_us)
        change = adjustment_of(used, standing_of(used, {}), OnePrice(1_000_000, from_us=5))
        assert (change is not None) is priced


def test_differences_add_up() -> None:
    used = event(UNPRICED)
    one, other, total = Difference(), Difference(), Difference()
    one.add(standing_of(used, {}), adjustment_of(used, standing_of(used, {}), OnePrice(1_000_000)))
    other.add(standing_of(used, {}), None)
    total.merge(one)
    total.merge(other)
    assert (total.calls, total.changed_calls, total.newly_priced_calls, total.unpriced_calls) == (2, 1, 1, 1)
    assert (total.old_nano_usd, total.new_nano_usd) == (0, 103)
