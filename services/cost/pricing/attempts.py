"""What an attempt can cost when it is held, and what it did cost when it is settled."""

from typing import Final

from services.cost.events import FREE, Cost, HoldOrder, Settlement
from services.cost.holds import Hold
from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.estimates import priced
from services.cost.pricing.prices import Breakdown, worst_case
from services.cost.usage import possible_tiers, tier_named
from services.runtime.errors import InvalidField

CALL_MAX_NANO_USD: Final = 1_000_000 * 1_000_000_000
"""More than the largest limit of a budget is a mistake in a price or a count; sums of what is less fit in 64 bits."""
HELD_VERSION: Final = "hold"
"""The version of a price that is gone: the call is charged what was held for it."""


def most_of(order: HoldOrder, prices: PriceSource, now_us: int) -> int | None:
    """The most that an attempt can cost, nano-USD; None where it has no price.

    Where the provider may choose the tier the dearest is taken, and there has to be a price of the standard one.
    """
    tiers = possible_tiers(order.service_tier)
    most = _most_in(tiers[0], order, prices, now_us)
    if most is None:
        return None
    return max([most, *[_most_in(tier, order, prices, now_us) or 0 for tier in tiers[1:]]])


def _most_in(service_tier: str, order: HoldOrder, prices: PriceSource, now_us: int) -> int | None:
    """The most that an attempt can cost in a tier; None where it has no price.

    A price can change before the call is sent: the dearest of those that hold until the hold expires is taken.
    """
    quote = prices.quote(order.provider, (order.model,), service_tier, now_us)
    if quote is None:
        return None
    tariffs = [quote.tariff]
    until_us = now_us + order.expires_in_ms * 1_000
    for change_us in prices.changes(order.provider, order.model, service_tier, now_us, until_us):
        later = prices.quote(order.provider, (order.model,), service_tier, change_us)
        if later is not None:
            tariffs.append(later.tariff)
    return max(
        worst_case(order.input_tokens_max, order.output_tokens_max, tariff, order.steps_max).total_nano_usd
        for tariff in tariffs
    )


def cost_of(hold: Hold, settlement: Settlement, occurred_us: int, prices: PriceSource) -> tuple[Cost, Breakdown]:
    """What an attempt cost. One that had a price when it was held has one now, whatever answered it."""
    usage = settlement.usage
    if usage is None:
        return FREE, Breakdown()
    # A clock that is behind must not take the call to a time before the price by which it was held.
    priced_us = max(occurred_us, hold.created_us)
    tier = tier_named(settlement.service_tier) if settlement.service_tier else hold.service_tier
    answered = (settlement.provider_model, hold.model) if settlement.provider_model else (hold.model,)
    quote = prices.quote(hold.provider, answered, tier, priced_us)
    if quote is not None or not hold.priced:
        return priced(quote, usage)
    # Nobody knows what the tier that answered costs: what was asked for has a price.
    for at_us in (priced_us, hold.created_us):
        quote = prices.quote(hold.provider, (hold.model,), hold.service_tier, at_us)
        if quote is not None:
            return priced(quote, usage)
    held = Cost(hold.held_nano_usd, priced=True, price_version=HELD_VERSION)
    return held, Breakdown(request=hold.held_nano_usd)


def check_amount(nano_usd: int, field: str) -> None:
    """Refuse what a call cannot cost: InvalidField names `field`."""
    if nano_usd > CALL_MAX_NANO_USD:
        raise InvalidField(
            field,
            f"By its price this one call costs {nano_usd / 10**9:,.0f} USD; at most 1,000,000 can be counted. "
            "Check the counts, and the project's own prices of the model.",
        )
