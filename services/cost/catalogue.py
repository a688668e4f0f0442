"""The catalogue of prices: `genai-prices` and our own data, compiled once into integers.

`genai-prices` (pydantic, MIT) computes with decimals, takes some 200 us a call, and prices a model without prices at 0.
Here each of its models becomes a `ModelPrice` when the service starts, or is left out where it is not priced by the
token (audio by the hour, documents by the page, no price at all): such a model is unpriced, which is not free.
Rates are rounded to whole nano-USD per million tokens, an error of at most half a nano-USD in a million tokens.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from importlib.resources import files
from typing import Final, Protocol

from genai_prices import data as genai_data
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import ModelPrice as GenaiModelPrice

from services.cost.prices import DatedTariff, ModelPrice, Rates, Tariff, Tier

NANO_PER_USD: Final = 1_000_000_000
LOOKUPS_MAX: Final = 10_000
"""Names whose price is remembered; one more makes the catalogue forget them all and begin again."""

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


class PriceSource(Protocol):
    """Where the service finds the price of a model."""

    def find(self, provider: str, model: str) -> ModelPrice | None:
        """The price of a provider's model, by the name that the provider knows; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class OwnPrices:
    """Prices that the project itself states (the mock's), and other names of providers."""

    aliases: Mapping[str, str]
    models: Mapping[tuple[str, str], ModelPrice]


class Catalogue:
    """Every price that is known, in one immutable version."""

    def __init__(self, own: OwnPrices, providers: Iterable[Provider], genai_version: str) -> None:
        self._own = own
        self._all_providers = list(providers)
        self._providers = {provider.id: provider for provider in self._all_providers}
        self._compiled: dict[int, ModelPrice] = {}
        for provider in self._all_providers:
            for model in provider.models:
                compiled = compile_model(provider.id, model, genai_version)
                if compiled is not None:
                    self._compiled[id(model)] = compiled
        self._found: dict[tuple[str, str], ModelPrice | None] = {}

    @classmethod
    def load(cls) -> "Catalogue":
        """Compile the installed `genai-prices` and our own data; takes about a second, once."""
        return cls(load_own_prices(), genai_data.providers, f"genai-prices-{version('genai-prices')}")

    def __len__(self) -> int:
        return len(self._compiled) + len(self._own.models)

    def find(self, provider: str, model: str) -> ModelPrice | None:
        """The price of a provider's model, dated names included ("gpt-4o-2024-08-06"); None where there is none."""
        key = (provider, model)
        if key in self._found:
            return self._found[key]
        found = self._match(provider.lower(), model)
        if len(self._found) >= LOOKUPS_MAX:
            self._found.clear()
        self._found[key] = found
        return found

    def _match(self, provider_name: str, model: str) -> ModelPrice | None:
        own = self._own.models.get((provider_name, model))
        if own is not None:
            return own
        provider = self._providers.get(self._own.aliases.get(provider_name, provider_name))
        if provider is None:
            return None
        info = provider.find_model(model, all_providers=self._all_providers)
        return None if info is None else self._compiled.get(id(info))


def load_own_prices() -> OwnPrices:
    """Read `data/own_prices.json`."""
    data = json.loads(files("services.cost").joinpath("data/own_prices.json").read_text(encoding="utf-8"))
    models = {}
    for entry in data["models"]:
        rates = {kind: _nano(Decimal(usd)) for kind, usd in entry["usd_per_million_tokens"].items()}
        full = {kind: rates.get(kind, rates[_PARENTS.get(kind, kind)]) for kind in _PRICE_KEYS}
        tariff = Tariff((Tier(0, Rates(**full)),))
        key = (entry["provider"], entry["model"])
        models[key] = ModelPrice(*key, data["version"], (DatedTariff(tariff),))
    return OwnPrices(data["provider_aliases"], models)


def compile_model(provider_id: str, model: ModelInfo, catalogue_version: str) -> ModelPrice | None:
    """The integer form of a model's price; None where it has no price by the token at some time."""
    conditional = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    tariffs = []
    for entry in conditional:
        tariff = _compile_tariff(entry.prices)
        if tariff is None:
            return None
        tariffs.append(_dated(tariff, entry.constraint))
    return ModelPrice(provider_id, model.id, catalogue_version, tuple(tariffs)) if tariffs else None


def _compile_tariff(prices: GenaiModelPrice) -> Tariff | None:
    """A model with an input price alone (embeddings) charges nothing for output, as `genai-prices` has it."""
    if prices.input_mtok is None:
        return None
    values = {kind: _first(prices, keys) for kind, keys in _PRICE_KEYS.items()}
    starts = {0}
    for value in values.values():
        if isinstance(value, TieredPrices):
            # The source counts a tier from the first token above its start.
            starts.update(tier.start + 1 for tier in value.tiers)
    tiers = tuple(
        Tier(start, Rates(**{kind: _rate(value, start) for kind, value in values.items()})) for start in sorted(starts)
    )
    fee = prices.requests_kcount
    return Tariff(tiers, _nano(fee / _REQUESTS_PER_RATE) if isinstance(fee, Decimal) else 0)


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


def _dated(tariff: Tariff, constraint: StartDateConstraint | TimeOfDateConstraint | None) -> DatedTariff:
    if isinstance(constraint, StartDateConstraint):
        return DatedTariff(tariff, starts_us=_midnight_us(constraint.start_date))
    if isinstance(constraint, TimeOfDateConstraint):
        return DatedTariff(tariff, daily_us=(_time_us(constraint.start_time), _time_us(constraint.end_time)))
    return DatedTariff(tariff)


def _midnight_us(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000


def _time_us(at: time) -> int:
    """Microseconds after midnight UTC; a time without a zone is UTC."""
    moment = datetime.combine(date(1970, 1, 2), at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1_000_000 + moment.microsecond
