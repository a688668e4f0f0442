"""OpenAI chat completions, from the provider's side."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import orjson

from services.gateway.calls import (
    Call,
    ImagePart,
    Message,
    Parameters,
    Part,
    ProviderRequest,
    ReasoningPart,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.chunks import Event, Finished, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta, UsageSoFar
from services.gateway.collector import Collector
from services.gateway.failures import ProviderFault, refused
from services.gateway.mockserver.wire import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    StreamEncoder,
    WireRequest,
    model_names,
    script_options,
    sse,
)
from services.gateway.usage import TokenUsage

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_FINISH_WORDS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.PAUSE: "stop",
}


class OpenAiWire:
    """See Wire."""

    path = "/v1/chat/completions"

    def __init__(self, any_model: str) -> None:
        self._any_model = any_model

    def decode(self, body: Any, attempt_id: str) -> WireRequest:
        """See Wire.decode."""
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
            raise refused("INVALID_REQUEST", "messages: expected a list with at least one message")
        model, shown = model_names(body, self._any_model)
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_OUTPUT_TOKENS
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        call = Call(
            call_id=attempt_id,
            model=model,
            messages=tuple(_message(message) for message in body["messages"]),
            timeout_ms=0,
            parameters=_parameters(body),
            tools=tuple(_tool(tool.get("function") or {}) for tool in body.get("tools") or ()),
            tool_choice=_tool_choice(body.get("tool_choice")),
            response_json_schema=orjson.dumps(schema).decode() if schema else "",
        )
        include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        request = ProviderRequest(attempt_id, model, call, int(limit))
        return WireRequest(request, shown, stream=bool(body.get("stream")), include_usage=include_usage)

    def stream_encoder(self, wanted: WireRequest) -> StreamEncoder:
        """See Wire.stream_encoder."""
        return _StreamEncoder(wanted)

    def whole(self, answer: Collector, wanted: WireRequest) -> Any:
        """See Wire.whole."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text() or None}
        if reasoning := answer.reasoning():
            message["reasoning_content"] = reasoning
        calls = [part for part in answer.parts() if isinstance(part, ToolCallPart)]
        if calls:
            message["tool_calls"] = [
                {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments_json}}
                for part in calls
            ]
        finish = _FINISH_WORDS[answer.finish_reason or FinishReason.STOP]
        body = _head(wanted, "chat.completion")
        body["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
        if answer.usage is not None:
            body["usage"] = _usage(answer.usage)
        if answer.service_tier:
            body["service_tier"] = answer.service_tier
        return body

    def error(self, fault: ProviderFault) -> Any:
        """See Wire.error."""
        return {
            "error": {"message": fault.message, "type": fault.type or None, "param": None, "code": fault.code or None}
        }


class _StreamEncoder:
    def __init__(self, wanted: WireRequest) -> None:
        self._head = _head(wanted, "chat.completion.chunk")
        self._usage: TokenUsage | None = None
        self._tier: dict[str, str] = {}
        self._wanted = wanted

    def encode(self, events: Iterable[Event]) -> bytes:
        """One chunk for each event; usage waits for the end, as theirs does."""
        written = []
        for event in events:
            match event:
                case TextDelta(text):
                    written.append(self._chunk({"content": text}))
                case ReasoningDelta(text):
                    written.append(self._chunk({"reasoning_content": text}))
                case ToolCallDelta():
                    written.append(self._chunk({"tool_calls": [_tool_call(event)]}))
                case UsageSoFar(usage, tier):
                    self._usage = usage
                    self._tier = {"service_tier": tier} if tier else {}
                case Finished(reason):
                    written.append(self._chunk({}, _FINISH_WORDS[reason]))
        return b"".join(written)

    def end(self) -> bytes:
        """The usage chunk, which has no choices, and the last word."""
        usage = b""
        if self._usage is not None and self._wanted.include_usage:
            usage = sse({**self._head, **self._tier, "choices": [], "usage": _usage(self._usage)})
        return usage + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return sse({**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _head(wanted: WireRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{wanted.request.attempt_id}",
        "object": kind,
        "created": int(time.time()),
        "model": wanted.shown_model,
    }


def _tool_call(event: ToolCallDelta) -> dict[str, Any]:
    function = {"arguments": event.arguments_json}
    if not event.id:
        return {"index": event.index, "function": function}
    return {"index": event.index, "id": event.id, "type": "function", "function": {"name": event.name, **function}}


def _usage(usage: TokenUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _message(message: Any) -> Message:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise refused("INVALID_REQUEST", f"messages: each needs a role, one of {', '.join(_ROLES)}")
    role = _ROLES[message["role"]]
    content = message.get("content")
    if role == "tool":
        return Message(role, (ToolResultPart(str(message.get("tool_call_id")), str(content or "")),))
    parts: list[Part] = []
    if isinstance(reasoning := message.get("reasoning_content"), str):
        parts.append(ReasoningPart(reasoning))
    if isinstance(content, str):
        parts.append(TextPart(content))
    for part in content if isinstance(content, list) else ():
        if part.get("type") == "text":
            parts.append(TextPart(part["text"]))
        elif part.get("type") == "image_url":
            parts.append(ImagePart(part["image_url"]["url"]))
    for tool_call in message.get("tool_calls") or ():
        function = tool_call["function"]
        parts.append(ToolCallPart(tool_call["id"], function["name"], function["arguments"]))
    return Message(role, tuple(parts))


def _parameters(body: dict[str, Any]) -> Parameters:
    stop = body.get("stop") or ()
    return Parameters(
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        seed=body.get("seed"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        provider_options=script_options(body),
    )


def _tool(function: dict[str, Any]) -> Tool:
    schema = function.get("parameters")
    return Tool(
        function.get("name", ""), function.get("description", ""), orjson.dumps(schema).decode() if schema else ""
    )


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str((choice.get("function") or {}).get("name", ""))
    return choice if isinstance(choice, str) else ""
