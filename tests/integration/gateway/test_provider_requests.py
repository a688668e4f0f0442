"""What the providers send: every field of a call, on the wire of a server on loopback."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from services.gateway.calls import (
    Call,
    ImagePart,
    Message,
    Parameters,
    ProviderRequest,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.providers.openai_request import OpenAiDialect
from tests.support.gateway import call, collected, raises_call_failed, with_parameters
from tests.support.provider_kinds import KINDS, provider_of
from tests.support.replay import Asked, Reply, replay_server

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PICTURE = base64.b64encode(b"png").decode()

CONVERSATION = (
    Message("system", (TextPart("Be brief."),)),
    Message("user", (TextPart("Look:"), ImagePart(data=b"png", media_type="image/png"))),
    Message(
        "assistant",
        (
            ReasoningPart("I should look.", json.dumps({"format": "anthropic", "signature": "sig"}).encode()),
            ReasoningPart("", json.dumps({"format": "anthropic", "redacted": "secret"}).encode()),
            ReasoningPart("Elsewhere.", json.dumps({"format": "openai", "field": "reasoning_content"}).encode()),
            ReasoningPart("Nobody's."),
            TextPart("One moment."),
            ToolCallPart("call_1", "weather", '{"city": "Paris"}'),
        ),
    ),
    Message("tool", (ToolResultPart("call_1", "rain"),)),
    Message("user", (ImagePart(url="https://example.com/a.png"),)),
)


def full_call() -> Call:
    return call(
        messages=CONVERSATION,
        parameters=Parameters(
            temperature=0.5,
            top_p=0.9,
            max_output_tokens=100,
            stop=("END",),
            reasoning_effort="low",
            provider_options={"service_tier": "auto"},
        ),
        tools=(Tool("weather", "Tells the weather.", json.dumps(SCHEMA)),),
        tool_choice="weather",
        response_json_schema=json.dumps(SCHEMA),
    )


async def sent_by(kind: str, asked: Call, *, dialect: OpenAiDialect | None = None, style: str = "") -> Asked:
    """The request that a call becomes."""
    async with replay_server(lambda _: Reply(500)) as server:
        provider = provider_of(kind, server.base_url, dialect=dialect)
        try:
            await collected(provider.stream(ProviderRequest("run_1/7/1/1", "model-1", asked, 2_100, style), 0))
        finally:
            await provider.close()
    return server.asked[0]


async def test_openai_request() -> None:
    asked = await sent_by("openai", full_call(), dialect=OpenAiDialect("max_completion_tokens"))
    assert asked.path == "/chat/completions"
    assert asked.headers["authorization"] == "Bearer secret-key"
    assert asked.headers["idempotency-key"] == "run_1/7/1/1"
    assert asked.json == {
        "model": "model-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
                ],
            },
            {
                "role": "assistant",
                "content": "One moment.",
                "reasoning_content": "Elsewhere.",
                "tool_calls": [
                    {
                        "type": "function",
                        "id": "call_1",
                        "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
            },
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "reasoning_effort": "low",
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
        "max_completion_tokens": 2_100,
        "service_tier": "auto",
    }


async def test_anthropic_request() -> None:
    asked = await sent_by("anthropic", full_call())
    assert asked.path == "/v1/messages"
    assert "secret-key" in (asked.headers.get("authorization", "") + asked.headers.get("x-api-key", ""))
    assert asked.headers["anthropic-version"]
    assert asked.headers["idempotency-key"] == "run_1/7/1/1"
    assert asked.json == {
        "model": "model-1",
        "max_tokens": 2_100,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "I should look.", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "secret"},
                    {"type": "text", "text": "One moment."},
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain", "is_error": False}],
            },
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}],
            },
        ],
        "stream": True,
        "stop_sequences": ["END"],
        "thinking": {"type": "enabled", "budget_tokens": 2_048},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "tools": [{"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "temperature": 0.5,
        "top_p": 0.9,
        "service_tier": "auto",
    }


async def test_responses_request() -> None:
    own = ReasoningPart("", b'{"format": "openai_responses", "item": {"id": "r", "encrypted_content": "e"}}')
    unsent = ReasoningPart("", b'{"format": "openai_responses", "item": {"id": "r"}}')
    history = (*CONVERSATION[:2], Message("assistant", (unsent, own, *CONVERSATION[2].parts)), *CONVERSATION[3:])
    whole = full_call()
    asked = await sent_by("responses", replace(whole, messages=history, parameters=replace(whole.parameters, stop=())))
    assert asked.path == "/responses"
    assert asked.headers["authorization"] == "Bearer secret-key"
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"}
    assert asked.json == {
        "model": "model-1",
        "input": [
            {"role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
            {"role": "user", "content": [{"type": "input_text", "text": "Look:"}, picture]},
            {"id": "r", "encrypted_content": "e"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "One moment."}]},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Paris"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]},
        ],
        "stream": True,
        "max_output_tokens": 2_100,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning": {"effort": "low", "summary": "auto"},
        "tools": [
            {
                "type": "function",
                "name": "weather",
                "description": "Tells the weather.",
                "parameters": SCHEMA,
                "strict": False,
            }
        ],
        "tool_choice": {"type": "function", "name": "weather"},
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}},
        "service_tier": "auto",
    }


@pytest.mark.parametrize(
    "parameters", [{"seed": 1}, {"stop": ("x",)}, {"frequency_penalty": 0.1}, {"presence_penalty": 0.1}]
)
def test_the_responses_api_says_what_it_does_not_take(parameters: dict[str, Any]) -> None:
    provider = provider_of("responses", "http://127.0.0.1:9")
    asked = ProviderRequest("a/1", "m", with_parameters(**parameters), 10)
    failed = raises_call_failed(lambda: provider.stream(asked, 0))
    assert failed.failure.field == f"call.parameters.{next(iter(parameters))}"


async def test_gemini_request() -> None:
    signed = (
        ReasoningPart("I should look.", json.dumps({"format": "gemini", "signature": "s1"}).encode()),
        ReasoningPart("Elsewhere.", json.dumps({"format": "anthropic", "signature": "sig"}).encode()),
        TextPart("One moment."),
        ReasoningPart("", b'{"format": "gemini", "part": {"executableCode": {"code": "1"}}}'),
        ReasoningPart("", b'{"format": "gemini", "call_signature": "s2"}'),
        ToolCallPart("call_1", "weather", '{"city": "Paris"}'),
        ToolCallPart("call_2", "weather", "Rome"),
    )
    history = (
        *CONVERSATION[:2],
        Message("assistant", signed),
        Message("tool", (ToolResultPart("call_1", "rain"),)),
        Message("tool", (ToolResultPart("call_2", "no such place", is_error=True),)),
        Message("user", (ImagePart(url="https://example.com/a.jpg?size=1"),)),
    )
    asked = await sent_by("gemini", replace(full_call(), messages=history))
    assert asked.path == "/v1beta/models/model-1:streamGenerateContent?alt=sse"
    assert asked.headers["x-goog-api-key"] == "secret-key"
    assert asked.headers["idempotency-key"] == "run_1/7/1/1"
    first = {"functionCall": {"id": "call_1", "name": "weather", "args": {"city": "Paris"}}, "thoughtSignature": "s2"}
    second = {"functionCall": {"id": "call_2", "name": "weather", "args": {"arguments": "Rome"}}}
    results = [
        {"functionResponse": {"id": "call_1", "name": "weather", "response": {"output": "rain"}}},
        {"functionResponse": {"id": "call_2", "name": "weather", "response": {"error": "no such place"}}},
        {"fileData": {"fileUri": "https://example.com/a.jpg?size=1", "mimeType": "image/jpeg"}},
    ]
    thought = {"text": "I should look.", "thought": True, "thoughtSignature": "s1"}
    code = {"executableCode": {"code": "1"}}
    declared = {"name": "weather", "description": "Tells the weather.", "parametersJsonSchema": SCHEMA}
    assert asked.json == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Look:"}, {"inlineData": {"mimeType": "image/png", "data": PICTURE}}]},
            {"role": "model", "parts": [thought, {"text": "One moment."}, code, first, second]},
            {"role": "user", "parts": results},
        ],
        "generationConfig": {
            "maxOutputTokens": 2_100,
            "temperature": 0.5,
            "topP": 0.9,
            "stopSequences": ["END"],
            "thinkingConfig": {"thinkingBudget": 2_048, "includeThoughts": True},
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
        },
        "tools": [{"functionDeclarations": [declared]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        "service_tier": "auto",
    }


@pytest.mark.parametrize(
    ("base_url", "model", "path"),
    [
        ("", "gemini-x", "/v1beta/models/gemini-x:streamGenerateContent?alt=sse"),
        ("/", "tunedModels/mine", "/v1beta/tunedModels/mine:streamGenerateContent?alt=sse"),
        ("/v1/publishers/google", "a b", "/v1/publishers/google/models/a%20b:streamGenerateContent?alt=sse"),
    ],
)
async def test_gemini_addresses(base_url: str, model: str, path: str) -> None:
    async with replay_server(lambda _: Reply(500)) as server:
        provider = provider_of("gemini", server.base_url + base_url)
        await collected(provider.stream(ProviderRequest("a/1", model, call(), 10), 0))
        await provider.close()
    assert server.asked[0].path == path


@pytest.mark.parametrize(
    ("effort", "style", "expected"),
    [
        ("none", "budget", {"thinkingBudget": 0, "includeThoughts": False}),
        ("high", "budget", {"thinkingBudget": 2_099, "includeThoughts": True}),
        ("none", "level", {"thinkingLevel": "minimal", "includeThoughts": False}),
        ("medium", "level", {"thinkingLevel": "medium", "includeThoughts": True}),
    ],
)
async def test_gemini_reasoning_styles(effort: str, style: str, expected: dict[str, Any]) -> None:
    body = (await sent_by("gemini", with_parameters(reasoning_effort=effort), style=style)).json
    assert body["generationConfig"]["thinkingConfig"] == expected


async def test_gemini_takes_seed_penalties_and_data_urls() -> None:
    picture = Message("user", (ImagePart(url="data:image/webp;base64,AAAA"),))
    asked = replace(with_parameters(seed=7, frequency_penalty=0.5, presence_penalty=-0.5), messages=(picture,))
    body = (await sent_by("gemini", asked)).json
    config = body["generationConfig"]
    assert (config["seed"], config["frequencyPenalty"], config["presencePenalty"]) == (7, 0.5, -0.5)
    assert body["contents"][0]["parts"] == [{"inlineData": {"mimeType": "image/webp", "data": "AAAA"}}]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_caller_leaves_out_is_not_sent(kind: str) -> None:
    body = (await sent_by(kind, call())).json
    common = {"model", "messages", "stream", "max_tokens"}
    expected = {"anthropic": common, "openai": common | {"stream_options"}, "gemini": {"contents", "generationConfig"}}
    expected["responses"] = {"model", "input", "stream", "max_output_tokens", "store", "include"}
    assert set(body) == expected[kind]


async def test_dialects_are_data() -> None:
    mistral = OpenAiDialect(stream_options=False, seed_field="random_seed")
    body = (await sent_by("openai", with_parameters(seed=7), dialect=mistral)).json
    assert not body.keys() & {"stream_options", "seed"}
    assert body["random_seed"] == 7


async def test_openai_takes_seed_and_penalties() -> None:
    asked = with_parameters(seed=7, frequency_penalty=0.5, presence_penalty=-0.5)
    body = (await sent_by("openai", asked)).json
    assert (body["seed"], body["frequency_penalty"], body["presence_penalty"]) == (7, 0.5, -0.5)


@pytest.mark.parametrize(
    ("choice", "openai", "anthropic", "gemini"),
    [
        ("auto", "auto", {"type": "auto"}, "AUTO"),
        ("none", "none", {"type": "none"}, "NONE"),
        ("required", "required", {"type": "any"}, "ANY"),
    ],
)
async def test_tool_choices(choice: str, openai: str, anthropic: dict[str, Any], gemini: str) -> None:
    asked = call(tools=(Tool("look"),), tool_choice=choice)
    assert (await sent_by("openai", asked)).json["tool_choice"] == openai
    body = (await sent_by("anthropic", asked)).json
    assert body["tool_choice"] == anthropic
    assert body["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
    body = (await sent_by("gemini", asked)).json
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": gemini}}
    assert body["tools"] == [{"functionDeclarations": [{"name": "look", "description": ""}]}]


@pytest.mark.parametrize(
    ("effort", "style", "expected"),
    [
        ("none", "budget", {"thinking": {"type": "disabled"}}),
        ("minimal", "budget", {"thinking": {"type": "enabled", "budget_tokens": 1_024}}),
        # The budget has to be below max_tokens.
        ("high", "budget", {"thinking": {"type": "enabled", "budget_tokens": 2_099}}),
        ("minimal", "adaptive", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        ("high", "adaptive", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
    ],
)
async def test_anthropic_reasoning_styles(effort: str, style: str, expected: dict[str, Any]) -> None:
    body = (await sent_by("anthropic", with_parameters(reasoning_effort=effort), style=style)).json
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (call(response_json_schema="{"), "call.response_json_schema"),
        (call(response_json_schema="[]"), "call.response_json_schema"),
        (call(tools=(Tool("a"), Tool("b", parameters_json_schema="no"))), "call.tools[1].parameters_json_schema"),
        (with_parameters(provider_options={"model": "dear"}), "call.parameters.provider_options['model']"),
        (with_parameters(provider_options={"stream": False}), "call.parameters.provider_options['stream']"),
    ],
)
def test_what_cannot_be_sent_names_the_field(kind: str, asked: Call, field: str) -> None:
    provider = provider_of(kind, "http://127.0.0.1:9")
    failed = raises_call_failed(lambda: provider.stream(ProviderRequest("a/1", "m", asked, 10), 0))
    assert (failed.failure.reason, failed.failure.field, failed.failure.dispatched) == ("INVALID_FIELD", field, False)


def test_anthropic_has_no_seed() -> None:
    provider = provider_of("anthropic", "http://127.0.0.1:9")
    failed = raises_call_failed(lambda: provider.stream(ProviderRequest("a/1", "m", with_parameters(seed=1), 10), 0))
    assert failed.failure.field == "call.parameters.seed"


async def test_tool_arguments_that_are_no_object_are_not_lost() -> None:
    parts = (ToolCallPart("1", "a", "not json"), ToolCallPart("2", "b", "[1]"), ToolCallPart("3", "c", ""))
    asked = call(messages=(Message("user", (TextPart("hi"),)), Message("assistant", parts)))
    blocks = (await sent_by("anthropic", asked)).json["messages"][1]["content"]
    assert [block["input"] for block in blocks] == [{"arguments": "not json"}, {"arguments": [1]}, {}]
