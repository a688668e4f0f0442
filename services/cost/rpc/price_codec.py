"""Prices, estimates and costs on the wire."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from llmlab.api.cost.v1 import price_pb2 as pb
from services.cost.pricing.catalogue import Catalogue
from services.cost.pricing.estimates import Estimate, InputLength, Plan, tokens_of_bytes
from services.cost.pricing.overrides import Override, check_service_tier, check_tiers
from services.cost.pricing.prices import Breakdown, DatedTariff, ModelPrice, Rates, Tariff, Tier, WorstCase
from services.cost.rpc.codec import microseconds_of, split_model, timestamp_of, usage_message
from services.cost.usage import tier_named

_US_PER_S: Final = 1_000_000
# The kinds of tokens whose rate can be left out, and the one that holds then.
_PARENTS: Final = {
    "cache_read": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "input",
    "input_audio": "input",
    "reasoning": "output",
    "output_audio": "output",
}


def tier_message(tier: Tier) -> pb.PriceTier:
    """The rates of one tier."""
    rates = tier.rates
    return pb.PriceTier(
        input_tokens_from=tier.input_tokens_from,
        input_nano_usd_per_mtok=rates.input,
        cache_read_nano_usd_per_mtok=rates.cache_read,
        cache_write_5m_nano_usd_per_mtok=rates.cache_write_5m,
        cache_write_1h_nano_usd_per_mtok=rates.cache_write_1h,
        input_audio_nano_usd_per_mtok=rates.input_audio,
        output_nano_usd_per_mtok=rates.output,
        reasoning_nano_usd_per_mtok=rates.reasoning,
        output_audio_nano_usd_per_mtok=rates.output_audio,
    )


def price_message(tariff: Tariff, service_tier: str, version: str, *, in_force: bool) -> pb.Price:
    """A price without its dates."""
    return pb.Price(
        service_tier=service_tier,
        tiers=[tier_message(tier) for tier in tariff.tiers],
        request_nano_usd=tariff.request_nano_usd,
        step_nano_usd=tariff.step_nano_usd,
        price_version=version,
        in_force=in_force,
    )


def price_messages(price: ModelPrice, at_us: int) -> list[pb.Price]:
    """Every price of a model of the catalogue; `in_force` says which hold at a time."""
    messages = []
    for service_tier, tariffs in {"": price.tariffs, **price.service_tiers}.items():
        held = price.dated_at(at_us, service_tier)
        for dated, ends_us in zip(tariffs, _ends_of(tariffs), strict=True):
            message = price_message(dated.tariff, service_tier, price.version, in_force=dated is held)
            if dated.starts_us is not None:
                message.starts_at.CopyFrom(timestamp_of(dated.starts_us))
            if ends_us is not None:
                message.ends_at.CopyFrom(timestamp_of(ends_us))
            if dated.daily_us is not None:
                message.daily_from_s, message.daily_until_s = (time_us // _US_PER_S for time_us in dated.daily_us)
            messages.append(message)
    return messages


def breakdown_message(breakdown: Breakdown) -> pb.CostBreakdown:
    """The parts of a cost, and their sum."""
    parts = {f"{name}_nano_usd": amount for name, amount in breakdown.parts().items()}
    return pb.CostBreakdown(total_nano_usd=breakdown.total_nano_usd, **parts)


def plan_of(item: pb.EstimateItem, field: str) -> Plan:
    """Calls that are planned; InvalidField names the model's field where its name is none."""
    provider, model = split_model(item.model, f"{field}.model")
    length = InputLength(item.input_tokens, item.input_tokens)
    expected = item.expected_output_tokens if item.HasField("expected_output_tokens") else item.max_output_tokens
    return Plan(
        provider=provider,
        model=model,
        service_tier=tier_named(item.service_tier),
        input_tokens=tokens_of_bytes(item.input_bytes) if item.HasField("input_bytes") else length,
        output_tokens_expected=expected,
        output_tokens_max=item.max_output_tokens,
        answers=item.answers or 1,
        steps_max=item.max_steps,
        calls=item.calls or 1,
    )


def estimate_message(model: str, estimate: Estimate) -> pb.CostEstimate:
    """What planned calls cost."""
    return pb.CostEstimate(
        model=model,
        price_version=estimate.version,
        expected_usage=usage_message(estimate.usage),
        expected=breakdown_message(estimate.expected),
        worst_case=_worst_case_message(estimate.worst),
    )


def override_of(message: pb.PriceOverride, names: Catalogue, project_id: str, override_id: str) -> Override:
    """An override that is to be created; InvalidField names what cannot be. The store sets its times and revisions."""
    provider, model = split_model(message.model, "override.model")
    provider = names.name_of(provider, model)[0]
    service_tier = check_service_tier(
        tier_named(message.service_tier), "override.service_tier", catalogued=provider in names.providers
    )
    check_tiers([tier.input_tokens_from for tier in message.tiers], "override.tiers")
    tiers = tuple([Tier(tier.input_tokens_from, _rates_of(tier)) for tier in message.tiers])
    return Override(
        override_id=override_id,
        project_id=project_id,
        provider=provider,
        model=model.lower(),
        service_tier=service_tier,
        tariff=Tariff(tiers, message.request_nano_usd, message.step_nano_usd),
        effective_us=microseconds_of(message.effective_from) if message.HasField("effective_from") else 0,
        created_us=0,
        ended_us=None,
        created_revision=0,
        ended_revision=None,
    )


def override_message(override: Override) -> pb.PriceOverride:
    """An override, with every rate stated."""
    message = pb.PriceOverride(
        override_id=override.override_id,
        model=f"{override.provider}/{override.model}",
        service_tier=override.service_tier,
        tiers=[_override_tier(tier) for tier in override.tariff.tiers],
        request_nano_usd=override.tariff.request_nano_usd,
        step_nano_usd=override.tariff.step_nano_usd,
        effective_from=timestamp_of(override.effective_us),
        create_time=timestamp_of(override.created_us),
    )
    if override.ended_us is not None:
        message.ended_at.CopyFrom(timestamp_of(override.ended_us))
    return message


def _rates_of(tier: pb.OverrideTier) -> Rates:
    stated = {field.name: value for field, value in tier.ListFields()}
    plain = {"input": tier.input_nano_usd_per_mtok, "output": tier.output_nano_usd_per_mtok}
    return Rates(**plain, **{kind: stated.get(_field_of(kind), plain[parent]) for kind, parent in _PARENTS.items()})


def _override_tier(tier: Tier) -> pb.OverrideTier:
    rates = {_field_of(kind): getattr(tier.rates, kind) for kind in ("input", "output", *_PARENTS)}
    return pb.OverrideTier(input_tokens_from=tier.input_tokens_from, **rates)


def _field_of(kind: str) -> str:
    return f"{kind}_nano_usd_per_mtok"


def _worst_case_message(worst: WorstCase) -> pb.WorstCaseCost:
    return pb.WorstCaseCost(
        input_nano_usd=worst.input,
        output_nano_usd=worst.output,
        fees_nano_usd=worst.fees,
        rounding_nano_usd=worst.rounding,
        total_nano_usd=worst.total_nano_usd,
    )


def _ends_of(tariffs: Sequence[DatedTariff]) -> list[int | None]:
    """When each is superseded for good: by the next one that has a start and holds all day."""
    ends = [after.starts_us if after.daily_us is None else None for _, after in pairwise(tariffs)]
    return [*ends, None]
