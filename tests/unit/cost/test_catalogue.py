"""Agreement with genai-prices itself, which computes in decimals from the same data."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as GenaiUsage
from genai_prices import data as genai_data
from genai_prices.types import ModelInfo, Provider

from services.cost.catalogue import LOOKUPS_MAX, Catalogue
from services.cost.prices import price
from services.cost.usage import Usage

NANO = Decimal(10**9)
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
PAST = datetime(2024, 6, 1, 18, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


def us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def models() -> Iterator[tuple[Provider, ModelInfo]]:
    for provider in genai_data.providers:
        for model in provider.models:
            yield provider, model


def token_price(provider: Provider, model: ModelInfo, usage: Usage, at: datetime) -> Decimal:
    """What genai-prices computes for the kinds of tokens that we count; 1-hour writes are part of its cache writes."""
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
    }
    return model.calc_price(GenaiUsage(**counts), provider, genai_request_timestamp=at).total_price * NANO


@pytest.mark.parametrize("at", [NOW, PAST], ids=["now", "2024"])
@pytest.mark.parametrize("input_tokens", [1_000, 32_001, 128_000, 200_000, 200_001, 272_001, 1_000_000])
def test_every_priced_model_agrees_with_genai_prices(catalogue: Catalogue, at: datetime, input_tokens: int) -> None:
    usage = Usage(
        input_tokens=input_tokens,
        cache_read_tokens=input_tokens // 4,
        cache_write_5m_tokens=input_tokens // 8,
        cache_write_1h_tokens=input_tokens // 16,
        output_tokens=777,
        reasoning_tokens=333,
    )
    compared = 0
    for provider, model in models():
        ours = catalogue._compiled.get(id(model))
        if ours is None:
            continue
        expected = token_price(provider, model, usage, at)
        amount = price(usage, ours.at(us(at))).total_nano_usd
        # Half a nano-USD for the rounding of each of six parts, and half of one for the rounding of each rate per
        # million tokens (0.0833333333333333 USD in the source).
        assert abs(amount - expected) <= 6, (provider.id, model.id, amount, expected)
        compared += 1
    assert compared > 2_000


def test_models_that_are_not_priced_by_the_token_are_unpriced(catalogue: Catalogue) -> None:
    left_out = [model for _, model in models() if id(model) not in catalogue._compiled]
    assert left_out
    for model in left_out:
        prices = [model.prices] if not isinstance(model.prices, list) else [entry.prices for entry in model.prices]
        assert any(entry.input_mtok is None for entry in prices), model.id


@pytest.mark.parametrize(
    ("provider", "model", "known_as"),
    [
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "GPT-4o-mini", "gpt-4o-mini"),
        ("gemini", "gemini-2.5-pro", "gemini-2.5-pro"),
        ("mock", "small", "small"),
    ],
)
def test_names_and_aliases_are_found(catalogue: Catalogue, provider: str, model: str, known_as: str) -> None:
    found = catalogue.find(provider, model)
    assert found is not None
    assert found.model == known_as


@pytest.mark.parametrize(("provider", "model"), [("mock", "huge"), ("openai", "no-such-model"), ("my-vllm", "gpt-4o")])
def test_an_unknown_model_has_no_price(catalogue: Catalogue, provider: str, model: str) -> None:
    assert catalogue.find(provider, model) is None
    assert catalogue.find(provider, model) is None


def test_mock_models_differ_and_say_their_version(catalogue: Catalogue) -> None:
    found = [catalogue.find("mock", size) for size in ("small", "medium", "large")]
    rates = [model.at(0).rates_for(0).output for model in found if model is not None]
    assert sorted(set(rates)) == rates
    assert len(rates) == 3
    assert {model.version for model in found if model is not None} == {"llmlab-prices-1"}


def test_the_version_names_the_source(catalogue: Catalogue) -> None:
    found = catalogue.find("openai", "gpt-4o-mini")
    assert found is not None
    assert found.version.startswith("genai-prices-")


def test_remembered_names_are_bounded(catalogue: Catalogue) -> None:
    for number in range(LOOKUPS_MAX + 5):
        catalogue.find("nobody", f"model-{number}")
    assert len(catalogue._found) <= LOOKUPS_MAX
