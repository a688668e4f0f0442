"""What a recording says was answered: read by plain JSON and string operations, not by the product's parsers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.recordings import Recording

OPENAI_FINISHES = {"stop": "STOP", "length": "LENGTH", "tool_calls": "TOOL_CALLS", "content_filter": "CONTENT_FILTER"}
ANTHROPIC_FINISHES = {"end_turn": "STOP", "max_tokens": "LENGTH", "tool_use": "TOOL_CALLS", "refusal": "CONTENT_FILTER"}
GEMINI_FINISHES = {"STOP": "STOP", "MAX_TOKENS": "LENGTH", "MODEL_ARMOR": "CONTENT_FILTER"}


@dataclass(frozen=True)
class Expected:
    """What a recording says."""

    text: str
    reasoning: str
    tool_calls: list[tuple[str, str, Any]]
    finish: str
    model: str
    usage: dict[str, int]


def expected(recording: Recording) -> Expected | None:
    """The answer in a recording; None where it has none."""
    if recording.whole is not None:
        if recording.format == "openai" and "choices" not in recording.whole:
            return None
        return _WHOLE[recording.format](recording.whole)
    data = [
        json.loads(line[5:])
        for line in recording.body.decode().splitlines()
        if line.startswith("data:") and "[DONE]" not in line
    ]
    return _STREAM[recording.format](data) if data else None


def _openai_whole(body: Any) -> Expected:
    message = body["choices"][0]["message"]
    return Expected(
        text=message.get("content") or "",
        reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
        tool_calls=[
            (call["id"], call["function"]["name"], json.loads(call["function"].get("arguments", "{}")))
            for call in message.get("tool_calls") or []
        ],
        finish=OPENAI_FINISHES[body["choices"][0]["finish_reason"]],
        model=body["model"],
        usage=_openai_usage(body["usage"]),
    )


def _openai_stream(chunks: list[Any]) -> Expected:
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    deltas = [choice["delta"] for choice in choices]
    assert not any(delta.get("tool_calls") for delta in deltas), "a recording with streamed tool calls: read them here"
    return Expected(
        text="".join(delta.get("content") or "" for delta in deltas),
        reasoning="".join(delta.get("reasoning") or delta.get("reasoning_content") or "" for delta in deltas),
        tool_calls=[],
        finish=OPENAI_FINISHES[[choice["finish_reason"] for choice in choices if choice["finish_reason"]][-1]],
        model=chunks[0]["model"],
        usage=_openai_usage([chunk["usage"] for chunk in chunks if chunk.get("usage")][-1]),
    )


def _openai_usage(usage: Any) -> dict[str, int]:
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    output = usage["completion_tokens"]
    reasoning = completion.get("reasoning_tokens") or 0
    if usage["total_tokens"] == usage["prompt_tokens"] + output + reasoning:
        # Reasoning is counted beside the completion.
        output += reasoning
    return {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": output,
        "cache_read_tokens": prompt.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0,
        "cache_write_5m_tokens": prompt.get("cache_write_tokens") or 0,
        "reasoning_tokens": reasoning,
    }


def _anthropic_whole(body: Any) -> Expected:
    content = body["content"]
    return Expected(
        text="".join(block["text"] for block in content if block["type"] == "text"),
        reasoning="".join(block["thinking"] for block in content if block["type"] == "thinking"),
        tool_calls=[(block["id"], block["name"], block["input"]) for block in content if block["type"] == "tool_use"],
        finish=ANTHROPIC_FINISHES[body["stop_reason"]],
        model=body["model"],
        usage=_anthropic_usage(body["usage"]),
    )


def _anthropic_stream(events: list[Any]) -> Expected:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert not any(block["type"] == "tool_use" for block in starts), "a recording with streamed tools: read them here"
    (start,) = (event["message"] for event in events if event["type"] == "message_start")
    (end,) = (event for event in events if event["type"] == "message_delta")
    return Expected(
        text="".join(delta["text"] for delta in deltas if delta["type"] == "text_delta"),
        reasoning="".join(delta["thinking"] for delta in deltas if delta["type"] == "thinking_delta"),
        tool_calls=[],
        finish=ANTHROPIC_FINISHES[end["delta"]["stop_reason"]],
        model=start["model"],
        usage=_anthropic_usage(start["usage"] | {k: v for k, v in end["usage"].items() if v is not None}),
    )


def _anthropic_usage(usage: Any) -> dict[str, int]:
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    hour = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    return {
        "input_tokens": usage["input_tokens"] + read + written,
        "output_tokens": usage["output_tokens"],
        "cache_read_tokens": read,
        "cache_write_5m_tokens": written - hour,
        "cache_write_1h_tokens": hour,
        "reasoning_tokens": (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0,
    }


def _gemini(bodies: list[Any]) -> Expected:
    """A whole answer is a stream of one piece."""
    candidates = [body["candidates"][0] for body in bodies if body.get("candidates")]
    parts = [part for candidate in candidates for part in candidate.get("content", {}).get("parts", [])]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    finishes = [candidate["finishReason"] for candidate in candidates if "finishReason" in candidate]
    if candidates:
        finish = GEMINI_FINISHES[finishes[-1]]
    else:
        assert bodies[-1]["promptFeedback"]["blockReason"]
        finish = "CONTENT_FILTER"
    response_id = bodies[0].get("responseId", "call")
    return Expected(
        text="".join(part.get("text", "") for part in parts if not part.get("thought")),
        reasoning="".join(part.get("text", "") for part in parts if part.get("thought")),
        tool_calls=[
            (call.get("id") or f"{response_id}-{index}", call["name"], call["args"]) for index, call in enumerate(calls)
        ],
        finish="TOOL_CALLS" if calls and finish == "STOP" else finish,
        model=bodies[0]["modelVersion"],
        usage=_gemini_usage(bodies[-1]["usageMetadata"]),
    )


def _gemini_whole(whole: Any) -> Expected:
    return _gemini([whole])


def _gemini_usage(usage: Any) -> dict[str, int]:
    if "totalTokenCount" not in usage:
        # Nothing was counted: the prompt was blocked.
        return {}
    thoughts = usage.get("thoughtsTokenCount", 0)
    counted = {
        "input_tokens": usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0),
        "output_tokens": usage.get("candidatesTokenCount", 0) + thoughts,
        "cache_read_tokens": usage.get("cachedContentTokenCount", 0),
        "input_audio_tokens": sum(
            detail["tokenCount"] for detail in usage["promptTokensDetails"] if detail["modality"] == "AUDIO"
        ),
        "reasoning_tokens": thoughts,
    }
    assert counted["input_tokens"] + counted["output_tokens"] == usage["totalTokenCount"]
    return counted


def _responses_stream(events: list[Any]) -> Expected:
    """The last event has the whole answer."""
    return _responses(events[-1]["response"])


def _responses(response: Any) -> Expected:
    items = response["output"]
    calls = [item for item in items if item["type"] == "function_call"]
    said = [part for item in items if item["type"] == "message" for part in item["content"]]
    thought = [part for item in items if item["type"] == "reasoning" for part in item["summary"]]
    assert response["status"] == "completed"
    usage = response["usage"]
    return Expected(
        text="".join(part["text"] for part in said),
        reasoning="".join(part["text"] for part in thought),
        tool_calls=[(call["call_id"], call["name"], json.loads(call["arguments"])) for call in calls],
        finish="TOOL_CALLS" if calls else "STOP",
        model=response["model"],
        usage={
            "input_tokens": usage["input_tokens"],
            "output_tokens": usage["output_tokens"],
            "cache_read_tokens": usage["input_tokens_details"]["cached_tokens"],
            "cache_write_5m_tokens": usage["input_tokens_details"].get("cache_write_tokens", 0),
            "reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"],
        },
    )


_WHOLE: dict[str, Callable[[Any], Expected]] = {
    "anthropic": _anthropic_whole,
    "gemini": _gemini_whole,
    "openai": _openai_whole,
    "responses": _responses,
}
_STREAM: dict[str, Callable[[Any], Expected]] = {
    "anthropic": _anthropic_stream,
    "gemini": _gemini,
    "openai": _openai_stream,
    "responses": _responses_stream,
}
