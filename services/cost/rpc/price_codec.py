"""Prices, estimates and costs on the wire."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from llmlab.api.cost.v1 import price_pb2 as pb
from services.cost.estimates import Estimate, InputLength, Plan, tokens_of_bytes
from services.cost.prices import Breakdown, DatedTariff, ModelPrice, Tariff, Tier, WorstCase
from services.cost.rpc.codec import split_model, timestamp_of, usage_message
from services.cost.usage import tier_named

_US_PER_S: Final = 1_000_000


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
