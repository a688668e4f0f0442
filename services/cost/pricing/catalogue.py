"""The catalogue of prices: compiled files of integers, one for each version, which never change.

`data/catalogues/<version>.json` holds every price that is known, from `genai-prices` and from `data/own_prices.json`
(the mock's, TinyFish's). The command in `catalogue_update.py` shows what the installed `genai-prices` would change, and
writes a new version; so an update of a library never changes a price by itself. The newest version is in use, and older
ones stay readable, because events name the version that they were priced by.

A model that is not priced by tokens, requests or steps (audio by the hour, documents by the page, no price at all) is
in the catalogue without a price: it is unpriced, which is not free.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from typing import Any, Final, Protocol

import orjson

from services.cost.pricing.matching import Matcher, matcher_of, with_dashed_date
from services.cost.pricing.prices import DatedTariff, ModelPrice, Quote, Rates, Tariff, Tier
from services.runtime.errors import DomainError, NotFound

LOOKUPS_MAX: Final = 10_000
"""Names whose price is remembered; one more makes the catalogue forget them all and begin again."""

_DATA: Final = files("services.cost.pricing").joinpath("data/catalogues")
_SUGGESTIONS: Final = 3
_SUFFIX: Final = ".json"


class PriceSource(Protocol):
    """Where the service finds prices."""

    def quote(self, provider: str, models: Sequence[str], service_tier: str, at_us: int) -> Quote | None:
        """The price in force at a time by the first of the names that has one; None where the call is unpriced.

        The names are those of one call: the model that answered, then the one that was asked for.
        """
        ...

    def changes(self, provider: str, model: str, service_tier: str, after_us: int, until_us: int) -> Sequence[int]:
        """The times after one, up to another, at which the price of a model can become another."""
        ...

    def name_of(self, provider: str, model: str) -> tuple[str, str]:
        """The names by which a provider and its model are known, in lower case; dated names mean their model."""
        ...


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of the catalogue; one without a price still takes its names."""

    matches: Matcher
    price: ModelPrice | None


@dataclass(frozen=True, slots=True)
class _Provider:
    """A provider's models in the order in which their names are tried."""

    fallbacks: tuple[str, ...]
    """Providers whose models it sells too."""
    models: tuple[_Model, ...]


class Catalogue:
    """Every price that is known, in one immutable version."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Read a compiled catalogue."""
        self.version: Final[str] = document["version"]
        self._aliases: Mapping[str, str] = document["aliases"]
        self._providers = {entry["id"]: _provider_of(entry, self.version) for entry in document["providers"]}
        self._found: dict[tuple[str, str], ModelPrice | None] = {}

    @classmethod
    def load(cls, version: str = "") -> "Catalogue":
        """A version of the catalogue, by default the newest; takes some tens of milliseconds.

        Raises NotFound for a version that there is not.
        """
        return cls(read_document(version or versions()[-1]))

    def quote(self, provider: str, models: Sequence[str], service_tier: str, at_us: int) -> Quote | None:
        """See PriceSource.quote."""
        for model in models:
            found = self.find(provider, model)
            if found is not None:
                tariff = found.at(at_us, service_tier)
                # A model that is known but not sold in the tier is unpriced: the next name would be a guess.
                return None if tariff is None else Quote(tariff, self.version)
        return None

    def changes(self, provider: str, model: str, service_tier: str, after_us: int, until_us: int) -> Sequence[int]:
        """See PriceSource.changes."""
        found = self.find(provider, model)
        return () if found is None else found.changes(service_tier, after_us, until_us)

    def name_of(self, provider: str, model: str) -> tuple[str, str]:
        """See PriceSource.name_of."""
        found = self.find(provider, model)
        return self.provider_named(provider), (model if found is None else found.model).lower()

    def find(self, provider: str, model: str) -> ModelPrice | None:
        """The price of a provider's model, dated names included ("gpt-4o-2024-08-06"); None where there is none."""
        key = (provider, model)
        if key in self._found:
            return self._found[key]
        found = self._match(self.provider_named(provider), model.lower())
        if len(self._found) >= LOOKUPS_MAX:
            self._found.clear()
        self._found[key] = found
        return found

    def provider_named(self, name: str) -> str:
        """The catalogue's own name of a provider."""
        lowered = name.lower()
        return self._aliases.get(lowered, lowered)

    @property
    def providers(self) -> Sequence[str]:
        """The providers with at least one price, sorted."""
        return sorted({provider for provider, _ in self._by_name})

    def page(self, provider: str, contains: str, after: tuple[str, str], limit: int) -> list[ModelPrice]:
        """At most `limit` prices by provider and model, which follow `after`; an empty filter lets all through."""
        wanted = self.provider_named(provider) if provider else ""
        part = contains.lower()
        page: list[ModelPrice] = []
        for name, price in self._by_name.items():
            if name > after and wanted in ("", name[0]) and part in f"{name[0]}/{name[1]}":
                page.append(price)
                if len(page) == limit:
                    break
        return page

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], ModelPrice]:
        prices = [price for _, price in self._models() if price is not None]
        return {(price.provider, price.model): price for price in sorted(prices, key=lambda p: (p.provider, p.model))}

    def _models(self) -> Iterator[tuple[str, ModelPrice | None]]:
        for name, provider in self._providers.items():
            for model in provider.models:
                yield name, model.price

    def _match(self, provider_name: str, model: str) -> ModelPrice | None:
        provider = self._providers.get(provider_name)
        if provider is None:
            return None
        # Resellers write dates without dashes; such a name is tried as it is first.
        for name in dict.fromkeys((model, with_dashed_date(model))):
            for seller in (provider, *[self._providers[other] for other in provider.fallbacks]):
                for entry in seller.models:
                    if entry.matches(name):
                        return entry.price
        return None


def no_such_price(catalogue: Catalogue, provider: str, model: str, service_tier: str = "") -> DomainError:
    """The refusal to give a price that there is not; it names what may have been meant."""
    name = f"{provider}/{model}"
    advice = advice_on(catalogue, provider, model)
    wanted = f"{name} ({service_tier})" if service_tier else name
    return DomainError(
        "NOT_FOUND",
        f"{wanted} has no price; {advice}. An override gives it a price of your own.",
        code="NOT_FOUND",
        metadata={"kind": "price of model", "id": name},
    )


def advice_on(catalogue: Catalogue, provider: str, model: str) -> str:
    """What may have been meant by names that have no price: "check the name (did you mean openai/gpt-4o?)"."""
    owner = catalogue.provider_named(provider)
    found = catalogue.find(provider, model)
    if found is not None:
        sold = ", ".join(["standard", *found.service_tiers])
        return f"it has a price in the service tiers: {sold}"
    if owner not in catalogue.providers:
        near = get_close_matches(owner, catalogue.providers, n=_SUGGESTIONS, cutoff=0.5)
        return f"the provider {provider!r} is not in the catalogue" + _did_you_mean(near)
    names = [price.model for price in catalogue.page(owner, "", ("", ""), LOOKUPS_MAX)]
    return "check the name" + _did_you_mean(
        [f"{owner}/{near}" for near in get_close_matches(model, names, _SUGGESTIONS)]
    )


def versions() -> list[str]:
    """The versions that there are, the newest last."""
    return sorted(entry.name.removesuffix(_SUFFIX) for entry in _DATA.iterdir() if entry.name.endswith(_SUFFIX))


def read_document(version: str) -> dict[str, Any]:
    """The compiled form of a version; NotFound where there is none."""
    if version not in versions():
        raise NotFound("version of the catalogue", version)
    document: dict[str, Any] = orjson.loads(_DATA.joinpath(version + _SUFFIX).read_bytes())
    return document


def _did_you_mean(names: Sequence[str]) -> str:
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def _provider_of(entry: Mapping[str, Any], version: str) -> _Provider:
    models = tuple(
        [_Model(matcher_of(model["match"]), _price_of(entry["id"], model, version)) for model in entry["models"]]
    )
    return _Provider(tuple(entry["fallbacks"]), models)


def _price_of(provider: str, model: Mapping[str, Any], version: str) -> ModelPrice | None:
    if not model["prices"]:
        return None
    tiers = {name: _tariffs_of(dated) for name, dated in model.get("service_tiers", {}).items()}
    return ModelPrice(provider, model["id"], version, _tariffs_of(model["prices"]), tiers)


def _tariffs_of(entries: Sequence[Mapping[str, Any]]) -> tuple[DatedTariff, ...]:
    return tuple([_tariff_of(entry) for entry in entries])


def _tariff_of(entry: Mapping[str, Any]) -> DatedTariff:
    """Tiers are `[input tokens from, rates in the order of Rates]`."""
    tiers = tuple([Tier(start, Rates(*rates)) for start, rates in entry["tiers"]])
    tariff = Tariff(tiers, entry.get("request", 0), entry.get("step", 0))
    daily_us = entry.get("daily_us")
    return DatedTariff(tariff, entry.get("starts_us"), None if daily_us is None else (daily_us[0], daily_us[1]))
