"""What a recording says was answered: read by plain JSON and string operations, not by the product's parsers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.recordings import Recording

OPENAI_FINISHES = {
    "stop": "STOP",
    "length": "LENGTH",
    "tool_calls": "TOOL_CALLS",
    "function_call": "TOOL_CALLS",
    "content_filter": "CONTENT_FILTER",
}
ANTHROPIC_FINISHES = {
    "end_turn": "STOP",
    "stop_sequence": "STOP",
    "max_tokens": "LENGTH",
    "model_context_window_exceeded": "LENGTH",
    "tool_use": "TOOL_CALLS",
    "refusal": "CONTENT_FILTER",
    "pause_turn": "PAUSE",
    "compaction": "PAUSE",
}
GEMINI_FINISHES = {"STOP": "STOP", "MAX_TOKENS": "LENGTH"}
GEMINI_FILTERS = ("MODEL_ARMOR", "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE")
RESPONSES_FINISHES = {"max_output_tokens": "LENGTH", "content_filter": "CONTENT_FILTER"}


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
    """The answer in a recording; None where it has none, or an error in its midst."""
    if recording.whole is not None:
        if recording.format == "openai" and "choices" not in recording.whole:
            return None
        return _WHOLE[recording.format](recording.whole)
    if error_within(recording) is not None:
        return None
    data = _events(recording)
    return _STREAM[recording.format](data) if data else None


def error_within(recording: Recording) -> Any:
    """The event of a stream that says an error; None where there is none."""
    if recording.whole is not None:
        return None
    return next((event for event in _events(recording) if isinstance(event, dict) and event.get("error")), None)


def _events(recording: Recording) -> list[Any]:
    return [
        json.loads(line[5:])
        for line in recording.body.decode().splitlines()
        if line.startswith("data:") and "[DONE]" not in line
    ]


def _openai_whole(body: Any) -> Expected:
    message = body["choices"][0]["message"]
    refusal = message.get("refusal") or ""
    unnamed = "TOOL_CALLS" if message.get("tool_calls") else "STOP"
    finish = OPENAI_FINISHES.get(body["choices"][0]["finish_reason"], unnamed)
    return Expected(
        text=_openai_text([message]) + refusal,
        reasoning=_openai_reasoning([message]),
        tool_calls=[
            (call["id"], call["function"]["name"], json.loads(call["function"].get("arguments") or "{}"))
            for call in message.get("tool_calls") or []
        ],
        finish="CONTENT_FILTER" if refusal else finish,
        model=body["model"],
        usage=_openai_usage(body["usage"]) if body.get("usage") else {},
    )


def _openai_stream(chunks: list[Any]) -> Expected:
    choices = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
    deltas = [choice["delta"] for choice in choices if choice.get("delta")]
    usages = [usage for chunk in chunks if (usage := chunk.get("usage") or chunk.get("x_groq", {}).get("usage"))]
    refusal = "".join(delta.get("refusal") or "" for delta in deltas)
    named = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    tools = _openai_tools([call for delta in deltas for call in delta.get("tool_calls") or []])
    # Some servers end every stream without a reason (services/gateway/catalogue.yaml, names_finish).
    finish = OPENAI_FINISHES.get(named[-1]) if named else "TOOL_CALLS" if tools else "STOP"
    return Expected(
        text=_openai_text(deltas) + refusal,
        reasoning=_openai_reasoning(deltas),
        tool_calls=tools,
        finish="CONTENT_FILTER" if refusal else finish or "STOP",
        model=next(chunk["model"] for chunk in chunks if chunk.get("model")),
        usage=_openai_usage(usages[-1]) if usages else {},
    )


def _openai_text(deltas: list[Any]) -> str:
    """Content is a text, or (Mistral) a list of parts."""
    return "".join(
        content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
        for delta in deltas
        if (content := delta.get("content"))
    )


def _openai_reasoning(deltas: list[Any]) -> str:
    thought = [
        thinking["text"]
        for delta in deltas
        if isinstance(delta.get("content"), list)
        for part in delta["content"]
        if part.get("type") == "thinking"
        for thinking in part["thinking"]
    ]
    plain = [delta.get("reasoning_content") or delta.get("reasoning") or "" for delta in deltas]
    details = [
        detail.get("text") or detail.get("summary") or ""
        for delta in deltas
        for detail in delta.get("reasoning_details") or ()
    ]
    return "".join(thought) or "".join(plain) or "".join(details)


def _openai_tools(pieces: list[Any]) -> list[tuple[str, str, Any]]:
    """Pieces of one index belong together; the first has id and name."""
    calls: dict[int, list[str]] = {}
    for position, piece in enumerate(pieces):
        call = calls.setdefault(piece.get("index", position), ["", "", ""])
        function = piece.get("function") or {}
        call[0] = call[0] or piece.get("id") or ""
        call[1] = call[1] or function.get("name") or ""
        call[2] += function.get("arguments") or ""
    return [(call[0], call[1], json.loads(call[2] or "{}")) for call in calls.values()]


def _openai_usage(usage: Any) -> dict[str, int]:
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    output = usage["completion_tokens"]
    # What is in the total only is reasoning that the completion leaves out.
    left_out = max(0, (usage.get("total_tokens") or 0) - usage["prompt_tokens"] - output)
    reasoning = max(completion.get("reasoning_tokens") or 0, left_out)
    output += left_out
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
    blocks = {event["index"]: event["content_block"] for event in events if event["type"] == "content_block_start"}
    inputs: dict[int, str] = {}
    for event in events:
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta":
            inputs[event["index"]] = inputs.get(event["index"], "") + event["delta"]["partial_json"]
    (start,) = (event["message"] for event in events if event["type"] == "message_start")
    ends = [event for event in events if event["type"] == "message_delta"]
    usage = start["usage"]
    for end in ends:
        usage = usage | {name: value for name, value in end["usage"].items() if value is not None}
    return Expected(
        text="".join(delta["text"] for delta in deltas if delta["type"] == "text_delta"),
        reasoning="".join(delta["thinking"] for delta in deltas if delta["type"] == "thinking_delta"),
        tool_calls=[
            (block["id"], block["name"], json.loads(inputs.get(index) or "{}") or block["input"])
            for index, block in blocks.items()
            if block["type"] == "tool_use"
        ],
        finish=ANTHROPIC_FINISHES[[end["delta"]["stop_reason"] for end in ends if end["delta"].get("stop_reason")][-1]],
        model=start["model"],
        usage=_anthropic_usage(usage),
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
        finish = "CONTENT_FILTER" if finishes[-1] in GEMINI_FILTERS else GEMINI_FINISHES[finishes[-1]]
    else:
        assert bodies[-1]["promptFeedback"]["blockReason"]
        finish = "CONTENT_FILTER"
    response_id = bodies[0].get("responseId", "call")
    return Expected(
        text="".join(part.get("text", "") for part in parts if not part.get("thought")),
        reasoning="".join(part.get("text", "") for part in parts if part.get("thought")),
        tool_calls=[
            (call.get("id") or f"{response_id}-{index}", call["name"], call.get("args", {}))
            for index, call in enumerate(calls)
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
            detail["tokenCount"] for detail in usage.get("promptTokensDetails", ()) if detail["modality"] == "AUDIO"
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
    calls = [item for item in items if item["type"] in ("function_call", "custom_tool_call")]
    said = [part for item in items if item["type"] == "message" for part in item["content"]]
    # Servers of open models give the reasoning itself, as content; OpenAI gives summaries.
    thought = [
        part
        for item in items
        if item["type"] == "reasoning"
        for part in [*item["summary"], *(item.get("content") or ())]
    ]
    if response["status"] == "incomplete":
        finish = RESPONSES_FINISHES[response["incomplete_details"]["reason"]]
    elif response["status"] in ("queued", "in_progress"):
        # It goes on in the background, which the gateway never asks for: an answer without an end.
        finish = ""
    else:
        assert response["status"] in ("completed", "complete")
        refused = any(part["type"] == "refusal" for part in said)
        finish = "CONTENT_FILTER" if refused else "TOOL_CALLS" if calls else "STOP"
    usage = response["usage"] or {}
    read, written = usage.get("input_tokens_details") or {}, usage.get("output_tokens_details") or {}
    return Expected(
        text="".join(part.get("text") or part.get("refusal") or "" for part in said),
        reasoning="".join(part["text"] for part in thought),
        tool_calls=[
            (call["call_id"], call["name"], json.loads(call.get("arguments") or json.dumps(call.get("input"))))
            for call in calls
        ],
        finish=finish,
        model=response["model"],
        usage={
            "input_tokens": usage.get("input_tokens") or 0,
            "output_tokens": usage.get("output_tokens") or 0,
            "cache_read_tokens": read.get("cached_tokens") or 0,
            "cache_write_5m_tokens": read.get("cache_write_tokens") or 0,
            "reasoning_tokens": written.get("reasoning_tokens") or 0,
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
