"""Amounts worked out by hand from the providers' public price pages (USD per million tokens, as of 2026-11).

Anthropic bills input that is neither read from nor written to the cache ("exclusive"), OpenAI and Google count cached
tokens within the input ("inclusive"); by the time that usage comes here, totals include their parts for all of them.
"""

from dataclasses import dataclass

import pytest

from services.cost.pricing.catalogue import Catalogue
from services.cost.pricing.prices import price
from services.cost.usage import Usage, check_usage

NOW_US = 1_795_000_000_000_000
MICRO = 1_000
"""Nano-USD in a millionth of a USD, which is one token at 1 USD per million."""


@dataclass(frozen=True)
class Vector:
    provider: str
    model: str
    usage: Usage
    micro_usd: float
    service_tier: str = ""


def exclusive(plain: int, *, read: int = 0, write_5m: int = 0, write_1h: int = 0, output: int = 0) -> Usage:
    """Usage as Anthropic reports it, with the total that includes its parts."""
    return Usage(plain + read + write_5m + write_1h, read, write_5m, write_1h, output_tokens=output)


VECTORS = [
    # Claude Sonnet 4.5: input 3, read 0.30, 5 m write 3.75, 1 h write 6, output 15;
    # above 200,000: 6, 0.60, 7.50, 12, 22.50.
    Vector("anthropic", "claude-sonnet-4-5", exclusive(1_000, output=500), 1_000 * 3 + 500 * 15),
    Vector("anthropic", "claude-sonnet-4-5", exclusive(100, read=10_000, output=10), 100 * 3 + 10_000 * 0.3 + 10 * 15),
    Vector("anthropic", "claude-sonnet-4-5", exclusive(10, write_5m=4_000), 10 * 3 + 4_000 * 3.75),
    Vector("anthropic", "claude-sonnet-4-5", exclusive(10, write_1h=4_000), 10 * 3 + 4_000 * 6),
    Vector("anthropic", "claude-sonnet-4-5", exclusive(150_000, read=50_000, output=9), 450_000 + 15_000 + 135),
    Vector("anthropic", "claude-sonnet-4-5", exclusive(150_001, read=50_000, output=9), 900_006 + 30_000 + 202.5),
    Vector("anthropic", "claude-sonnet-4-5", exclusive(200_000), 600_000),
    Vector("anthropic", "claude-sonnet-4-5", exclusive(200_001), 1_200_006),
    # Batches are half the price.
    Vector("anthropic", "claude-sonnet-4-5", exclusive(1_000, output=500), 1_500 + 3_750, "batch"),
    # Claude Haiku 4.5: 1, 0.10, 1.25, 2, 5.
    Vector(
        "anthropic",
        "claude-haiku-4-5-20251001",
        exclusive(1_000, read=1_000, write_5m=1_000, write_1h=1_000, output=1_000),
        1_000 * (1 + 0.1 + 1.25 + 2 + 5),
    ),
    # GPT-4o: input 2.50, cached 1.25, output 10; batch 1.25 and 5.
    Vector("openai", "gpt-4o-2024-08-06", Usage(2_000, 1_024, output_tokens=100), 976 * 2.5 + 1_024 * 1.25 + 1_000),
    Vector("openai", "gpt-4o", Usage(2_000, output_tokens=100), 2_000 * 1.25 + 100 * 5, "batch"),
    # o3: 2, cached 0.50, output 8, reasoning counts as output.
    Vector("openai", "o3", Usage(1_000, output_tokens=900, reasoning_tokens=800), 2_000 + 7_200),
    # GPT-5: 1.25, cached 0.125, output 10; flex half, priority twice as much.
    Vector("openai", "gpt-5", Usage(1_000, 800, output_tokens=100), 200 * 1.25 + 800 * 0.125 + 1_000),
    Vector("openai", "gpt-5", Usage(1_000, 800, output_tokens=100), 200 * 0.625 + 800 * 0.0625 + 500, "flex"),
    Vector("openai", "gpt-5", Usage(1_000, 800, output_tokens=100), 200 * 2.5 + 800 * 0.25 + 2_000, "priority"),
    # gpt-realtime: text 4 and 16, audio 32 and 64.
    Vector(
        "openai",
        "gpt-realtime",
        Usage(1_000, input_audio_tokens=600, output_tokens=500, output_audio_tokens=400),
        400 * 4 + 600 * 32 + 100 * 16 + 400 * 64,
    ),
    # Gemini 2.5 Pro: 1.25, cached 0.125, output 10 with its thoughts; above 200,000: 2.50, 0.25, 15.
    Vector("google", "gemini-2.5-pro", Usage(200_000, output_tokens=100, reasoning_tokens=60), 250_000 + 1_000),
    Vector("google", "gemini-2.5-pro", Usage(200_001, output_tokens=100, reasoning_tokens=60), 500_002.5 + 1_500),
    Vector("google", "gemini-2.5-pro", Usage(200_001, 100_000), 100_001 * 2.5 + 100_000 * 0.25),
    # Gemini 2.5 Flash: text 0.30, audio 1, output 2.50.
    Vector("google", "gemini-2.5-flash", Usage(1_000, input_audio_tokens=900, output_tokens=10), 30 + 900 + 25),
    # Embeddings have no output: 0.02.
    Vector("openai", "text-embedding-3-small", Usage(1_000_000), 20_000),
    # TinyFish: 0.016 USD a step, whatever the automation.
    Vector("tinyfish", "automation-run", Usage(steps=12), 12 * 16_000),
]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector.model}-{vector.service_tier}")
def test_amounts_are_those_of_the_price_pages(catalogue: Catalogue, vector: Vector) -> None:
    check_usage(vector.usage, "usage")
    quote = catalogue.quote(vector.provider, (vector.model,), vector.service_tier, NOW_US)
    assert quote is not None
    assert price(vector.usage, quote.tariff).total_nano_usd == round(vector.micro_usd * MICRO)


def test_exclusive_and_inclusive_reports_of_one_call_cost_the_same(catalogue: Catalogue) -> None:
    quote = catalogue.quote("anthropic", ("claude-sonnet-4-5",), "", NOW_US)
    assert quote is not None
    assert price(exclusive(100, read=900), quote.tariff) == price(Usage(1_000, 900), quote.tariff)
