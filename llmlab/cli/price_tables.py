"""The tables of prices. Rates are USD per million tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.markup import escape
from rich.table import Table

from llmlab.api.cost.v1 import price_pb2, repricing_pb2
from llmlab.cli import money
from llmlab.cli.plain import enum_name

Rates: TypeAlias = price_pb2.PriceTier | price_pb2.OverrideTier

_STANDARD = "standard"
_NONE = "-"
# The kinds of tokens: heading, field, and the kind whose rate they have where they have none of their own.
_KINDS = (
    ("input", "input", ""),
    ("cache\nread", "cache_read", "input"),
    ("write\n5m", "cache_write_5m", "input"),
    ("write\n1h", "cache_write_1h", "input"),
    ("audio\nin", "input_audio", "input"),
    ("output", "output", ""),
    ("reason-\ning", "reasoning", "output"),
    ("audio\nout", "output_audio", "output"),
)
_DIFFERENCE_HEADINGS = ("calls\nchanged", "newly priced\nstill unpriced", "cost old\nnew")


def model_table(found: price_pb2.GetModelPriceResponse) -> Table:
    """Every price of one model: the one in force first, then what the catalogue has."""
    rows = [("in force", tier, _fee(found.request_nano_usd, found.step_nano_usd), "") for tier in found.tiers]
    for price in found.all.prices:
        fee = _fee(price.request_nano_usd, price.step_nano_usd)
        rows += [(price.service_tier or _STANDARD, tier, fee, _since(price)) for tier in price.tiers]
    kinds = [kind for kind in _KINDS if any(_is_own(tier, kind) for _, tier, _, _ in rows)]
    table = _table(
        f"{found.model} · USD per million tokens · by {found.price_version}",
        ("service tier", "from\ntokens", *[heading for heading, _, _ in kinds], "fee", "since"),
    )
    for name, tier, fee, since in rows:
        rates = [money.exact_usd(_rate(tier, kind)) for _, kind, _ in kinds]
        table.add_row(name, f"{tier.input_tokens_from:,}", *rates, fee, since)
    return table


def list_table(models: Iterable[price_pb2.ModelPrice]) -> Table:
    """One line a model: the standard price of a short call."""
    table = _table("USD per million tokens", ("model", "input", "cache\nread", "output", "fee", "other tiers"))
    for model in models:
        standard = next((price for price in model.prices if not price.service_tier), None)
        others = ", ".join(price.service_tier for price in model.prices if price.service_tier)
        if standard is None:
            continue
        tier = standard.tiers[0]
        table.add_row(
            model.model,
            money.exact_usd(tier.input_nano_usd_per_mtok),
            money.exact_usd(tier.cache_read_nano_usd_per_mtok),
            money.exact_usd(tier.output_nano_usd_per_mtok),
            _fee(standard.request_nano_usd, standard.step_nano_usd),
            others,
        )
    return table


def override_table(overrides: Iterable[price_pb2.PriceOverride]) -> Table:
    """Prices of the project's own; an entry has two lines or more, so that it fits a narrow terminal."""
    table = _table("Own prices · USD per million tokens", ("model\nid", "price", "since\nended"))
    table.columns[0].no_wrap = True
    table.columns[1].justify = "left"
    for override in overrides:
        of_tier = f" ({override.service_tier})" if override.service_tier else ""
        lines = [_override_tier(tier) for tier in override.tiers]
        fee = _fee(override.request_nano_usd, override.step_nano_usd)
        if fee != _NONE:
            lines.append(fee)
        ended = _day(override.ended_at) if override.HasField("ended_at") else _NONE
        table.add_row(
            escape(f"{override.model}{of_tier}\n{override.override_id}"),
            "\n".join(lines),
            f"{_day(override.effective_from)}\n{ended}",
        )
    return table


def difference_table(preview: repricing_pb2.PreviewRepricingResponse) -> Table:
    """What a repricing would change, by model."""
    table = _table("What would change", ("model", *_DIFFERENCE_HEADINGS))
    for row in preview.models:
        table.add_row(escape(row.model), *_difference(row.difference))
    table.add_section()
    table.add_row("all", *_difference(preview.total))
    return table


def repricing_table(repricings: Iterable[repricing_pb2.Repricing]) -> Table:
    """Repricings on record."""
    table = _table("Repricings", ("id\nstate", "from\nto", *_DIFFERENCE_HEADINGS))
    table.columns[0].no_wrap = True
    for repricing in repricings:
        state = enum_name(repricing_pb2.RepricingState.DESCRIPTOR, repricing.state).lower()
        days = f"{_day(repricing.filter.start_time)}\n{_day(repricing.filter.end_time)}"
        table.add_row(f"{repricing.repricing_id}\n{state}", days, *_difference(repricing.difference))
    return table


def estimate_table(estimate: price_pb2.CostEstimate) -> Table:
    """The parts of an estimate."""
    table = _table(f"{estimate.model} · by {estimate.price_version}", ("", "input", "output", "fees", "total"))
    expected, worst = estimate.expected, estimate.worst_case
    rows = {
        "expected": (
            expected.input_nano_usd,
            expected.output_nano_usd,
            expected.request_nano_usd + expected.steps_nano_usd,
            expected.total_nano_usd,
        ),
        "at most": (worst.input_nano_usd, worst.output_nano_usd, worst.fees_nano_usd, worst.total_nano_usd),
    }
    for name, amounts in rows.items():
        table.add_row(name, *[money.dollars(amount) for amount in amounts])
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    return table


def _rate(tier: Rates, kind: str) -> int:
    rate: int = getattr(tier, f"{kind}_nano_usd_per_mtok")
    return rate


def _is_own(tier: Rates, kind: tuple[str, str, str]) -> bool:
    """Whether a kind of tokens has another rate than its parent."""
    _, name, parent = kind
    return not parent or _rate(tier, name) != _rate(tier, parent)


def _override_tier(tier: price_pb2.OverrideTier) -> str:
    start = f"from {tier.input_tokens_from:,}: " if tier.input_tokens_from else ""
    own = [kind for kind in _KINDS if _is_own(tier, kind)]
    return start + ", ".join(f"{name.replace('_', ' ')} {money.exact_usd(_rate(tier, name))}" for _, name, _ in own)


def _fee(request_nano_usd: int, step_nano_usd: int) -> str:
    fees = [f"{money.exact_usd(request_nano_usd)}/call"] if request_nano_usd else []
    fees += [f"{money.exact_usd(step_nano_usd)}/step"] if step_nano_usd else []
    return " ".join(fees) or _NONE


def _difference(difference: repricing_pb2.RepricingDifference) -> tuple[str, ...]:
    return (
        f"{difference.calls:,}\n{difference.changed_calls:,}",
        f"{difference.newly_priced_calls:,}\n{difference.unpriced_calls:,}",
        f"{money.dollars(difference.old_nano_usd)}\n{money.dollars(difference.new_nano_usd)}",
    )


def _day(moment: Timestamp) -> str:
    return moment.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%d")


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}"


def _since(price: price_pb2.Price) -> str:
    since = _day(price.starts_at) if price.HasField("starts_at") else "always"
    if price.daily_from_s == price.daily_until_s:
        return since
    return f"{since} {_clock(price.daily_from_s)}-{_clock(price.daily_until_s)}"
