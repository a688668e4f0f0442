"""Service tiers: what a call asks for, and what the answers of the providers report."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.gateway.collector import Collector
from services.gateway.providers.anthropic_answer import AnthropicDecoder
from services.gateway.providers.gemini_answer import GeminiDecoder
from services.gateway.providers.openai_answer import OpenAiDecoder
from services.gateway.providers.responses_answer import ResponsesDecoder
from services.gateway.providers.sse import SseEvent
from services.gateway.tiers import asked_tier, reported_tier
from tests.support.gateway import with_parameters


@pytest.mark.parametrize(
    ("options", "tier"),
    [
        ({}, ""),
        ({"service_tier": "flex"}, "flex"),
        ({"service_tier": "Priority"}, "priority"),
        ({"service_tier": "on-demand"}, "on_demand"),
        ({"service_tier": "standard_only"}, ""),
        ({"service_tier": None}, ""),
        ({"service_tier": 7}, ""),
        ({"serviceTier": "FLEX"}, "flex"),
        ({"service_tier": "x" * 99}, "x" * 32),
        ({"speed": "fast"}, "fast"),
        ({"speed": "standard", "service_tier": "batch"}, "batch"),
    ],
)
def test_the_tier_that_is_asked_for(options: dict[str, Any], tier: str) -> None:
    assert asked_tier(with_parameters(provider_options=options)) == tier
    assert reported_tier(options) == tier


@pytest.mark.parametrize("options", [{"service_tier": "auto"}, {"serviceTier": "AUTO"}])
def test_a_call_can_leave_the_tier_to_the_provider_and_no_answer_is_in_that_one(options: dict[str, Any]) -> None:
    assert asked_tier(with_parameters(provider_options=options)) == "auto"
    assert reported_tier(options) == ""


OPENAI = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
ANTHROPIC = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
RESPONSE = {"output": [], "status": "completed", "usage": {"input_tokens": 1}}


@pytest.mark.parametrize(
    ("decoder", "answer"),
    [
        (OpenAiDecoder(), {**OPENAI, "service_tier": "priority"}),
        (AnthropicDecoder(), {**ANTHROPIC, "usage": {"input_tokens": 1, "service_tier": "priority"}}),
        (ResponsesDecoder(), {**RESPONSE, "service_tier": "priority"}),
        (GeminiDecoder(), {"usageMetadata": {"promptTokenCount": 1, "serviceTier": "priority"}}),
    ],
)
def test_the_tier_that_a_whole_answer_reports(decoder: Any, answer: dict[str, Any]) -> None:
    collector = Collector()
    collector.add(decoder.whole_answer(answer))
    assert collector.service_tier == "priority"


@pytest.mark.parametrize(
    ("decoder", "events"),
    [
        (OpenAiDecoder(), [{"choices": [], "usage": {"prompt_tokens": 1}, "service_tier": "flex"}]),
        (
            AnthropicDecoder(),
            [
                {"type": "message_start", "message": {"usage": {"input_tokens": 1, "service_tier": "flex"}}},
                {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1}},
            ],
        ),
        (GeminiDecoder(), [{"usageMetadata": {"promptTokenCount": 1, "serviceTier": "flex"}}]),
        (ResponsesDecoder(), [{"type": "response.completed", "response": {**RESPONSE, "service_tier": "flex"}}]),
    ],
)
def test_the_tier_that_a_stream_reports(decoder: Any, events: list[dict[str, Any]]) -> None:
    collector = Collector()
    for body in events:
        into: list[Any] = []
        decoder.stream_event(SseEvent(b"", orjson.dumps(body)), into)
        collector.add(into)
    assert collector.service_tier == "flex"
