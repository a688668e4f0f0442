"""Compiles `genai-prices` (pydantic, MIT) and our own prices into the document of a catalogue.

`genai-prices` computes with decimals, takes some 200 us a call, takes the standard price for a context that it does
not know, and prices a model without prices at 0. Here rates become integers, rounded to whole nano-USD per million
tokens: an error of at most half a nano-USD in a million tokens.
"""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

from genai_prices import data as genai_data
from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import ModelPrice as GenaiModelPrice

NANO_PER_USD: Final = 1_000_000_000
_REQUESTS_PER_RATE: Final = 1_000

# Each kind of token with the price keys that may price it, the most specific first; the last is its parent's.
_PRICE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "input": ("input_mtok",),
    "cache_read": ("cache_read_mtok", "input_mtok"),
    "cache_write_5m": ("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
    "input_audio": ("input_audio_mtok", "input_mtok"),
    "output": ("output_mtok",),
    "reasoning": ("output_reasoning_mtok", "output_mtok"),
    "output_audio": ("output_audio_mtok", "output_mtok"),
}
_PARENTS: Final[Mapping[str, str]] = {
    "cache_read": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "input",
    "input_audio": "input",
    "reasoning": "output",
    "output_audio": "output",
}
# How a service tier is called in the request contexts of the source. Its other contexts (OpenRouter's routes,
# Perplexity's kinds of search) are no service tiers and cannot be asked for here.
_TIER_CONTEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}


def compile_document(catalogue_version: str) -> dict[str, Any]:
    """The document of a catalogue from the installed `genai-prices` and our own prices."""
    own = json.loads(files("services.cost.pricing").joinpath("data/own_prices.json").read_text(encoding="utf-8"))
    return {
        "version": catalogue_version,
        "sources": {"genai-prices": version("genai-prices"), "own_prices": own["version"]},
        "aliases": own["provider_aliases"],
        "providers": [
            *[_own_provider(entry) for entry in own["providers"]],
            *[_provider(provider) for provider in genai_data.providers],
        ],
    }


def _own_provider(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": entry["id"], "fallbacks": [], "models": [_own_model(model) for model in entry["models"]]}


def _own_model(entry: Mapping[str, Any]) -> dict[str, Any]:
    stated = {kind: Decimal(usd) for kind, usd in entry.get("usd_per_million_tokens", {}).items()}
    usd = [stated.get(kind, stated.get(_PARENTS.get(kind, kind), Decimal(0))) for kind in _PRICE_KEYS]
    tariff: dict[str, Any] = {"tiers": [[0, [_nano(value) for value in usd]]]}
    if "usd_per_step" in entry:
        tariff["step"] = _nano(Decimal(entry["usd_per_step"]))
    return {"id": entry["id"], "match": entry.get("match", {"equals": entry["id"]}), "prices": [tariff]}


def _provider(provider: Provider) -> dict[str, Any]:
    return {
        "id": provider.id,
        "fallbacks": list(provider.fallback_model_providers or ()),
        "models": [_model(model) for model in provider.models],
    }


def _model(model: ModelInfo) -> dict[str, Any]:
    compiled: dict[str, Any] = {"id": model.id, "match": _rule(model.match), "prices": _prices(model)}
    if compiled["prices"]:
        tiers = {name: dated for name in _TIER_CONTEXTS if (dated := _tier_prices(model, name))}
        if tiers:
            compiled["service_tiers"] = tiers
    return compiled


def _rule(clause: object) -> dict[str, Any]:
    match clause:
        case ClauseOr(clauses) | ClauseAnd(clauses):
            return {"or" if isinstance(clause, ClauseOr) else "and": [_rule(each) for each in clauses]}
        case ClauseStartsWith() | ClauseEndsWith() | ClauseContains() | ClauseEquals() | ClauseRegex():
            return dict(vars(clause))
    raise TypeError(f"genai-prices has a kind of name rule that this compiler does not know: {clause!r}")


def _prices(model: ModelInfo) -> list[dict[str, Any]]:
    """The dated prices of the standard tier; none where at some time the model is not priced by the token."""
    dated = []
    for entry in _conditional(model):
        tariff = _tariff(entry.prices)
        if tariff is None:
            return []
        dated.append({**tariff, **_condition(entry.constraint)})
    return dated


def _tier_prices(model: ModelInfo, name: str) -> list[dict[str, Any]]:
    """The dated prices of a service tier: a variant states some rates, the others are the standard ones of its time.

    Before its first variant begins a tier has no price.
    """
    context = _TIER_CONTEXTS[name]
    variants = [one for one in model.price_variants or () if all(context.get(k) == v for k, v in one.when.items())]
    constraints = [one.constraint for one in variants] + [entry.constraint for entry in _conditional(model)]
    if not variants or any(isinstance(one, TimeOfDateConstraint) for one in constraints):
        return []
    starts = {one.start_date for one in constraints if isinstance(one, StartDateConstraint)}
    dated = []
    for start in [date.min, *sorted(starts)]:
        at = datetime.combine(start, time(), UTC)
        if all(one.constraint is not None and not one.constraint.active(at) for one in variants):
            continue
        tariff = _tariff(model.get_prices(at, context))
        if tariff is not None:
            begins = {} if start == date.min else {"starts_us": _midnight_us(start)}
            dated.append({**tariff, **begins})
    return dated


def _conditional(model: ModelInfo) -> list[ConditionalPrice]:
    return model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]


def _tariff(prices: GenaiModelPrice) -> dict[str, Any] | None:
    """A model with an input price alone (embeddings) charges nothing for output, as `genai-prices` has it."""
    if prices.input_mtok is None:
        return None
    values = [_first(prices, keys) for keys in _PRICE_KEYS.values()]
    starts = {0}
    for value in values:
        if isinstance(value, TieredPrices):
            # The source counts a tier from the first token above its start.
            starts.update(tier.start + 1 for tier in value.tiers)
    tariff: dict[str, Any] = {"tiers": [[start, [_rate(value, start) for value in values]] for start in sorted(starts)]}
    fee = prices.requests_kcount
    if isinstance(fee, Decimal) and fee:
        tariff["request"] = _nano(fee / _REQUESTS_PER_RATE)
    return tariff


def _first(prices: GenaiModelPrice, keys: tuple[str, ...]) -> Decimal | TieredPrices:
    for key in keys:
        value: Decimal | TieredPrices | None = getattr(prices, key)
        if value is not None:
            return value
    return Decimal(0)


def _rate(value: Decimal | TieredPrices, input_tokens: int) -> int:
    if isinstance(value, Decimal):
        return _nano(value)
    usd = value.base
    for tier in value.tiers:
        if input_tokens > tier.start:
            usd = tier.price
    return _nano(usd)


def _nano(usd: Decimal) -> int:
    return round(usd * NANO_PER_USD)


def _condition(constraint: StartDateConstraint | TimeOfDateConstraint | None) -> dict[str, Any]:
    if isinstance(constraint, StartDateConstraint):
        return {"starts_us": _midnight_us(constraint.start_date)}
    if isinstance(constraint, TimeOfDateConstraint):
        return {"daily_us": [_time_us(constraint.start_time), _time_us(constraint.end_time)]}
    return {}


def _midnight_us(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000


def _time_us(at: time) -> int:
    """Microseconds after midnight UTC; a time without a zone is UTC."""
    moment = datetime.combine(date(1970, 1, 2), at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1_000_000 + moment.microsecond
