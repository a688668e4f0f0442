"""What calls will cost, before they are made; and what usage costs, without recording it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.cost.events import UNPRICED, Cost
from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.prices import Breakdown, Quote, WorstCase, price, worst_case
from services.cost.usage import Usage, possible_tiers
from services.runtime.errors import DomainError, InvalidField, WrongState

AMOUNT_MAX_NANO_USD = 2**63 - 1
"""Amounts are 64-bit numbers."""

# Byte-pair tokenizers average about four bytes of English a token (OpenAI, "What are tokens and how to count them");
# code, digits and scripts beyond Latin are up to twice as dense.
_BYTES_PER_TOKEN = 4
_BYTES_PER_TOKEN_DENSE = 2


@dataclass(frozen=True, slots=True)
class InputLength:
    """Input tokens of one call: as expected, and at most."""

    expected: int
    most: int


def tokens_of_bytes(size: int) -> InputLength:
    """How many tokens a text of so many bytes of UTF-8 is likely to be, and can be."""
    return InputLength(-(-size // _BYTES_PER_TOKEN), -(-size // _BYTES_PER_TOKEN_DENSE))


@dataclass(frozen=True, slots=True)
class Plan:
    """Equal calls that are planned."""

    provider: str
    model: str
    service_tier: str
    input_tokens: InputLength
    output_tokens_expected: int
    """Of one answer."""
    output_tokens_max: int
    """Of one answer."""
    answers: int
    """Of one call: its input is paid once, its output for each."""
    steps_max: int
    calls: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What planned calls cost, all of them together."""

    usage: Usage
    """What one call is expected to use."""
    version: str
    expected: Breakdown
    worst: WorstCase


def _check_the_name(_provider: str, _model: str) -> str:
    return "check the name"


def estimate(
    plan: Plan,
    prices: PriceSource,
    at_us: int,
    field: str,
    advise: Callable[[str, str], str] = _check_the_name,
) -> Estimate:
    """What a plan costs. InvalidField names `field` where it cannot be.

    WrongState where it has no price; `advise` says of a provider and a model what to do about that.
    """
    if plan.output_tokens_expected > plan.output_tokens_max:
        raise InvalidField(
            f"{field}.expected_output_tokens",
            f"{plan.output_tokens_expected:,} tokens are more than the limit of {plan.output_tokens_max:,}.",
        )
    tiers = possible_tiers(plan.service_tier)
    quote, *others = [prices.quote(plan.provider, (plan.model,), tier, at_us) for tier in tiers]
    if quote is None:
        raise _no_price(plan, advise(plan.provider, plan.model))
    output_tokens = plan.output_tokens_expected * plan.answers
    usage = Usage(plan.input_tokens.expected, output_tokens=output_tokens, steps=plan.steps_max)
    one = price(usage, quote.tariff)
    tariffs = [each.tariff for each in (quote, *others) if each is not None]
    most = (plan.input_tokens.most, plan.output_tokens_max * plan.answers)
    worst = max([worst_case(*most, tariff, plan.steps_max) for tariff in tariffs], key=lambda case: case.total_nano_usd)
    calls = plan.calls
    return Estimate(
        usage,
        quote.version,
        Breakdown(*[part * calls for part in one]),
        WorstCase(worst.input * calls, worst.output * calls, worst.fees * calls, worst.rounding * calls),
    )


def priced(quote: Quote | None, usage: Usage) -> tuple[Cost, Breakdown]:
    """What usage costs; without a quote it is unpriced. The counts must have passed `check_usage`."""
    if quote is None:
        return UNPRICED, Breakdown()
    breakdown = price(usage, quote.tariff)
    return Cost(breakdown.total_nano_usd, priced=True, price_version=quote.version), breakdown


def sum_nano_usd(amounts: Iterable[int]) -> int:
    """The sum; InvalidField where it cannot be counted in 64 bits."""
    total = sum(amounts)
    if total > AMOUNT_MAX_NANO_USD:
        raise InvalidField("items", "Together they cost more than 9.2 thousand million USD, which cannot be counted.")
    return total


def model_name(provider: str, model: str, service_tier: str) -> str:
    """A model for a person: "openai/gpt-5 (batch)"."""
    return f"{provider}/{model} ({service_tier})" if service_tier else f"{provider}/{model}"


def _no_price(plan: Plan, advice: str) -> DomainError:
    """The refusal to say a cost that is not known."""
    return WrongState(
        "UNPRICED",
        f"{model_name(plan.provider, plan.model, plan.service_tier)} has no price, so what it costs is unknown; "
        f"{advice}. An override gives it a price of your own.",
        subject=f"model:{plan.provider}/{plan.model}",
        metadata={"provider": plan.provider, "model": plan.model, "service_tier": plan.service_tier},
    )
