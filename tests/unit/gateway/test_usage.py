"""Token counts and their estimates."""

from __future__ import annotations

import pytest

from services.gateway.calls import ImagePart, Message, TextPart, Tool
from services.gateway.usage import TokenUsage, estimate_input_tokens, estimate_tokens, with_estimate
from tests.support.gateway import call


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本語", 3)])
def test_a_token_is_about_four_bytes(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_everything_that_is_sent_counts() -> None:
    plain = call("x" * 400)
    assert estimate_input_tokens(plain) == 104
    image = Message("user", (TextPart("x" * 400), ImagePart(url="https://example.com/a.png")))
    assert estimate_input_tokens(call(messages=(image,))) > 1_000
    assert estimate_input_tokens(call("x" * 400, tools=(Tool("t", "d" * 79),))) == 124
    assert estimate_input_tokens(call("x" * 400, response_json_schema="s" * 40)) == 114


def test_a_reservation_assumes_more_than_is_likely() -> None:
    asked = call("def f(x): return x ** 2" * 10)
    assert estimate_input_tokens(asked, dense=True) > 1.5 * estimate_input_tokens(asked)


def test_a_cut_answer_keeps_what_was_said_and_estimates_the_rest() -> None:
    early = TokenUsage(input_tokens=1_000, cache_read_tokens=900, output_tokens=1)
    assert with_estimate(early, call(), "x" * 40, "y" * 8) == TokenUsage(
        input_tokens=1_000, cache_read_tokens=900, output_tokens=12, reasoning_tokens=2, measured=False
    )


def test_what_the_provider_counted_is_not_made_smaller() -> None:
    assert with_estimate(TokenUsage(5, output_tokens=50), call(), "few", "").output_tokens == 50
