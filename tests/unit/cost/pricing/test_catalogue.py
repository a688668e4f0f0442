"""Agreement with genai-prices itself, which computes in decimals from the same data, over its whole catalogue.

Where the two differ, and why:

| what | genai-prices | here | because |
|---|---|---|---|
| a model without an input price | 0, or some of the parts | unpriced | an unknown price is not free |
| a service tier without a price | the standard price | unpriced | a discount or surcharge that is not known |
| a tier before its first price | the standard price | unpriced | as above |
| amounts | exact decimals | parts rounded half-even to nano-USD | parts add up; at most 1/2 nano-USD for each part |
| rates | as written | rounded to nano-USD per million | 0.0833333333333333 USD in the source; 1/2 in a million |
| searches, routes | by count, by context | not counted, the standard route | no usage of ours carries them |
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import pytest
from genai_prices import Usage as GenaiUsage
from genai_prices import data as genai_data
from genai_prices.types import ModelInfo, PriceVariant, Provider, StartDateConstraint

from services.cost.pricing.catalogue import LOOKUPS_MAX, Catalogue, no_such_price, versions
from services.cost.pricing.prices import price
from services.cost.usage import Usage
from services.runtime.errors import NotFound

NANO = Decimal(10**9)
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
AFTERNOON = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
PAST = datetime(2024, 6, 1, 18, 0, tzinfo=UTC)
NOBODY: Final = ("", "")
CONTEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
VECTORS: Final = (
    Usage(input_tokens=1_000, output_tokens=10),
    Usage(input_tokens=200_000, output_tokens=777),
    Usage(input_tokens=200_001, output_tokens=777),
    Usage(input_tokens=32_001, cache_read_tokens=30_000, output_tokens=333, reasoning_tokens=300),
    Usage(input_tokens=272_001, cache_write_5m_tokens=100_000, cache_write_1h_tokens=70_000, output_tokens=1),
    Usage(input_tokens=1_000_000, cache_read_tokens=250_000, cache_write_5m_tokens=125_000, output_tokens=64_000),
)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


def us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def models() -> Iterator[tuple[Provider, ModelInfo]]:
    for provider in genai_data.providers:
        for model in provider.models:
            yield provider, model


def genai_usage(usage: Usage) -> GenaiUsage:
    """For the kinds of tokens that we count; 1-hour writes are part of its cache writes."""
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
    }
    return GenaiUsage(**counts)


def own_prices(catalogue: Catalogue) -> dict[tuple[str, str], object]:
    return {(each.provider, each.model): each for each in catalogue.page("", "", NOBODY, 10**6)}


def is_priced_by_tokens(model: ModelInfo) -> bool:
    prices = [model.prices] if not isinstance(model.prices, list) else [entry.prices for entry in model.prices]
    return bool(prices) and all(entry.input_mtok is not None for entry in prices)


def test_exactly_the_models_without_an_input_price_are_unpriced(catalogue: Catalogue) -> None:
    priced = own_prices(catalogue)
    for provider, model in models():
        assert ((provider.id, model.id) in priced) == is_priced_by_tokens(model), (provider.id, model.id)
    assert len(priced) > 2_000


@pytest.mark.parametrize("at", [NOW, AFTERNOON, PAST], ids=["now", "afternoon", "2024"])
@pytest.mark.parametrize("usage", VECTORS)
def test_every_priced_model_agrees_with_genai_prices(catalogue: Catalogue, at: datetime, usage: Usage) -> None:
    prices = {(each.provider, each.model): each for each in catalogue.page("", "", NOBODY, 10**6)}
    theirs = genai_usage(usage)
    for provider, model in models():
        ours = prices.get((provider.id, model.id))
        if ours is None:
            continue
        tariff = ours.at(us(at))
        assert tariff is not None
        expected = model.calc_price(theirs, provider, genai_request_timestamp=at).total_price * NANO
        # Half a nano-USD for each of six parts and of their rates.
        assert abs(price(usage, tariff).total_nano_usd - expected) <= 6, (provider.id, model.id)


def starts_of(variants: list[PriceVariant]) -> list[datetime]:
    dates = [each.constraint.start_date for each in variants if isinstance(each.constraint, StartDateConstraint)]
    return [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in sorted(set(dates))]


@pytest.mark.parametrize("tier", CONTEXTS)
def test_every_service_tier_agrees_at_each_of_its_times(catalogue: Catalogue, tier: str) -> None:
    prices = {(each.provider, each.model): each for each in catalogue.page("", "", NOBODY, 10**6)}
    context = CONTEXTS[tier]
    compared = 0
    for provider, model in models():
        ours = prices.get((provider.id, model.id))
        if ours is None:
            continue
        known = [each for each in model.price_variants or () if all(context.get(k) == v for k, v in each.when.items())]
        always = any(each.constraint is None for each in known)
        for at in [PAST, *[start + timedelta(seconds=s) for start in starts_of(known) for s in (-1, 0)], NOW]:
            active = any(each.constraint is None or each.constraint.active(at) for each in known)
            tariff = ours.at(us(at), tier)
            assert (tariff is not None) == (active or always), (provider.id, model.id, at)
            for usage in VECTORS if tariff is not None else ():
                found = model.calc_price(
                    genai_usage(usage), provider, genai_request_timestamp=at, price_context=context
                )
                assert tariff is not None
                assert abs(price(usage, tariff).total_nano_usd - found.total_price * NANO) <= 6, (provider.id, model.id)
                compared += 1
    assert compared


def test_names_mean_the_models_that_genai_prices_means(catalogue: Catalogue) -> None:
    for provider in genai_data.providers:
        for model in provider.models:
            for name in (model.id, f"{model.id}-20260101", f"{model.id}-latest"):
                theirs = provider.find_model(name, all_providers=genai_data.providers)
                ours = catalogue.find(provider.id, name)
                expected = None if theirs is None or not is_priced_by_tokens(theirs) else theirs.id
                assert (None if ours is None else ours.model) == expected, (provider.id, name)


@pytest.mark.parametrize(
    ("provider", "model", "known_as"),
    [
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "GPT-4o-mini", "gpt-4o-mini"),
        ("gemini", "gemini-2.5-pro", "gemini-2.5-pro"),
        ("mock", "small", "small"),
        ("tinyfish", "whatever", "automation-run"),
    ],
)
def test_names_and_aliases_are_found(catalogue: Catalogue, provider: str, model: str, known_as: str) -> None:
    found = catalogue.find(provider, model)
    assert found is not None
    assert found.model == known_as


@pytest.mark.parametrize(("provider", "model"), [("mock", "huge"), ("openai", "no-such-model"), ("my-vllm", "gpt-4o")])
def test_an_unknown_model_has_no_price(catalogue: Catalogue, provider: str, model: str) -> None:
    assert catalogue.find(provider, model) is None
    assert catalogue.quote(provider, (model,), "", us(NOW)) is None


def test_the_first_name_with_a_price_decides(catalogue: Catalogue) -> None:
    by_answer = catalogue.quote("openai", ("gpt-4o-mini-2024-07-18", "gpt-4o"), "", us(NOW))
    by_request = catalogue.quote("openai", ("a-name-of-their-own", "gpt-4o"), "", us(NOW))
    assert by_answer is not None
    assert by_request is not None
    assert by_answer.tariff.rates_for(0).output < by_request.tariff.rates_for(0).output
    # The one that answered is known, and not sold in this tier: what it cost is not known.
    assert catalogue.quote("openai", ("gpt-4", "gpt-5"), "flex", us(NOW)) is None


def test_mock_models_differ(catalogue: Catalogue) -> None:
    found = [catalogue.quote("mock", (size,), "", 0) for size in ("small", "medium", "large")]
    rates = [quote.tariff.rates_for(0).output for quote in found if quote is not None]
    assert rates == sorted(set(rates))
    assert len(rates) == 3


def test_versions_are_named_and_can_be_read(catalogue: Catalogue) -> None:
    assert catalogue.version == versions()[-1]
    assert Catalogue.load(versions()[0]).version == versions()[0]
    with pytest.raises(NotFound):
        Catalogue.load("../../own_prices")


@pytest.mark.parametrize(
    ("name", "tier", "words"),
    [
        (("openai", "gpt-4o-mimi"), "", "openai/gpt-4o-mini"),
        (("opnai", "gpt-4o"), "", "did you mean openai"),
        (("openai", "gpt-4o"), "turbo", "standard, batch"),
    ],
)
def test_a_missing_price_says_what_may_have_been_meant(
    catalogue: Catalogue, name: tuple[str, str], tier: str, words: str
) -> None:
    assert words in no_such_price(catalogue, *name, tier).message


def test_prices_are_listed_in_pages(catalogue: Catalogue) -> None:
    first = catalogue.page("openai", "GPT-4o", NOBODY, 3)
    rest = catalogue.page("openai", "GPT-4o", (first[-1].provider, first[-1].model), 1_000)
    names = [each.model for each in first + rest]
    assert names == sorted(set(names))
    assert all("gpt-4o" in name for name in names)
    assert "gpt-4o-mini" in names


def test_remembered_names_are_bounded(catalogue: Catalogue) -> None:
    for number in range(LOOKUPS_MAX + 5):
        catalogue.find("nobody", f"model-{number}")
    assert len(catalogue._found) <= LOOKUPS_MAX
