"""The same answer in every wire format, streamed: two thoughts, a text in two pieces, two tool calls, usage."""

from __future__ import annotations

import json
from typing import Any

from services.gateway.usage import TokenUsage

SSE = {"Content-Type": "text/event-stream; charset=utf-8"}
JSON = {"Content-Type": "application/json"}


def sse(*bodies: Any) -> list[bytes]:
    """Each body as an event, named where it has a type."""
    written = []
    for body in bodies:
        name = f"event: {body['type']}\n" if "type" in body else ""
        written.append(f"{name}data: {json.dumps(body)}\n\n".encode())
    return written


def delta(**fields: Any) -> dict[str, Any]:
    """A chunk of OpenAI's."""
    return {"model": "gpt-x-2026", "id": "c1", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def start(index: int, block: dict[str, Any]) -> dict[str, Any]:
    """The start of a block of Anthropic's."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    """A piece of a block of Anthropic's."""
    return {"type": "content_block_delta", "index": index, "delta": delta}


def stop(index: int) -> dict[str, Any]:
    """The end of a block of Anthropic's."""
    return {"type": "content_block_stop", "index": index}


def tool(**fields: Any) -> dict[str, Any]:
    """A piece of a tool call of OpenAI's."""
    return delta(tool_calls=[fields])


OPENAI = [
    *sse(
        delta(role="assistant", content=""),
        delta(reasoning_content="Hmm, "),
        delta(reasoning_content="yes."),
        delta(content="Blü"),
        delta(content="e."),
        tool(index=0, id="t1", type="function", function={"name": "look", "arguments": ""}),
        tool(index=1, id="t2", type="function", function={"name": "hear", "arguments": "{}"}),
        tool(index=0, function={"arguments": '{"up": '}),
        tool(index=0, function={"arguments": "true}"}),
        {"model": "gpt-x-2026", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {
            "model": "gpt-x-2026",
            "choices": [],
            "usage": {
                "prompt_tokens": 20,
                "completion_tokens": 11,
                "total_tokens": 31,
                "prompt_tokens_details": {"cached_tokens": 16},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
        },
    ),
    b"data: [DONE]\n\n",
]
EARLY_USAGE = {
    "input_tokens": 2,
    "cache_read_input_tokens": 16,
    "cache_creation_input_tokens": 2,
    "output_tokens": 1,
}
ANTHROPIC = sse(
    {
        "type": "message_start",
        "message": {
            "model": "claude-x-2026",
            "id": "m1",
            "usage": EARLY_USAGE,
        },
    },
    {"type": "ping"},
    start(0, {"type": "thinking", "thinking": "", "signature": ""}),
    piece(0, {"type": "thinking_delta", "thinking": "Hmm, "}),
    piece(0, {"type": "thinking_delta", "thinking": "yes."}),
    piece(0, {"type": "signature_delta", "signature": "sig"}),
    stop(0),
    start(1, {"type": "text", "text": ""}),
    piece(1, {"type": "text_delta", "text": "Blü"}),
    piece(1, {"type": "text_delta", "text": "e."}),
    stop(1),
    start(2, {"type": "server_tool_use", "id": "s", "name": "web"}),
    piece(2, {"type": "input_json_delta", "partial_json": '{"not": "ours"}'}),
    stop(2),
    start(3, {"type": "tool_use", "id": "t1", "name": "look", "input": {}}),
    piece(3, {"type": "input_json_delta", "partial_json": '{"up": '}),
    piece(3, {"type": "input_json_delta", "partial_json": "true}"}),
    stop(3),
    start(4, {"type": "tool_use", "id": "t2", "name": "hear", "input": {}}),
    stop(4),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use"},
        "usage": {"output_tokens": 11, "output_tokens_details": {"thinking_tokens": 4}},
    },
    {"type": "message_stop"},
)


def partial(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An answer of Gemini's with these parts."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    return {"candidates": [candidate], "modelVersion": "gemini-x-2026", "responseId": "r1"}


GEMINI_USAGE = {"promptTokenCount": 14, "cachedContentTokenCount": 12, "toolUsePromptTokenCount": 6}
GEMINI = sse(
    partial({"text": "Hmm, ", "thought": True}) | {"usageMetadata": {**GEMINI_USAGE, "totalTokenCount": 20}},
    partial({"text": "yes.", "thought": True}),
    partial({"text": "Blü"}),
    partial({"text": "e."}),
    partial({"functionCall": {"id": "t1", "name": "look", "args": {"up": True}}, "thoughtSignature": "sig"}),
    partial({"functionCall": {"id": "t2", "name": "hear", "args": {}}}),
    partial({"text": ""}, finishReason="STOP")
    | {
        "usageMetadata": {
            **GEMINI_USAGE,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}, {"modality": "AUDIO", "tokenCount": 5}],
            "candidatesTokenCount": 7,
            "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}],
            "thoughtsTokenCount": 4,
            "totalTokenCount": 31,
        }
    },
)


def happened(kind: str, index: int = 0, **more: Any) -> dict[str, Any]:
    """An event of OpenAI's responses API."""
    return {"type": f"response.{kind}", "output_index": index, **more}


REASONING_ITEM = {"type": "reasoning", "id": "rs1", "summary": [], "encrypted_content": "sig"}
RESPONSES = sse(
    happened("created", response={"id": "r1", "model": "gpt-x-2026", "status": "in_progress"}),
    happened("output_item.added", item={"type": "reasoning"}),
    happened("reasoning_summary_text.delta", delta="Hmm, "),
    happened("reasoning_summary_text.delta", delta="yes."),
    happened("output_item.done", item=REASONING_ITEM),
    happened("output_item.added", 1, item={"type": "message"}),
    happened("output_text.delta", 1, delta="Blü"),
    happened("output_text.delta", 1, delta="e."),
    happened("output_text.done", 1, text="Blüe."),
    happened("output_item.added", 2, item={"type": "web_search_call"}),
    happened("output_item.added", 3, item={"type": "function_call", "call_id": "t1", "name": "look"}),
    happened("function_call_arguments.delta", 3, delta='{"up": '),
    happened("function_call_arguments.delta", 3, delta="true}"),
    happened(
        "output_item.done",
        3,
        item={"type": "function_call", "call_id": "t1", "name": "look", "arguments": '{"up": true}'},
    ),
    happened("output_item.done", 4, item={"type": "function_call", "call_id": "t2", "name": "hear", "arguments": "{}"}),
    happened(
        "completed",
        response={
            "status": "completed",
            "usage": {
                "input_tokens": 20,
                "output_tokens": 11,
                "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 4},
            },
        },
    ),
)
STREAMS = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI, "responses": RESPONSES}
USAGES = {
    "openai": TokenUsage(input_tokens=20, cache_read_tokens=16, output_tokens=11, reasoning_tokens=4),
    "anthropic": TokenUsage(
        input_tokens=20, cache_read_tokens=16, cache_write_5m_tokens=2, output_tokens=11, reasoning_tokens=4
    ),
    "responses": TokenUsage(
        input_tokens=20, cache_read_tokens=16, cache_write_5m_tokens=2, output_tokens=11, reasoning_tokens=4
    ),
    "gemini": TokenUsage(
        input_tokens=20,
        cache_read_tokens=12,
        input_audio_tokens=5,
        output_tokens=11,
        reasoning_tokens=4,
        output_audio_tokens=3,
    ),
}
KINDS = sorted(STREAMS)
