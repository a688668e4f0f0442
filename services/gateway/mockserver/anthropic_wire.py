"""Anthropic messages, from the provider's side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from services.gateway.calls import (
    Call,
    Message,
    Parameters,
    Part,
    ProviderRequest,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.chunks import Event, Finished, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta, UsageSoFar
from services.gateway.collector import Collector
from services.gateway.failures import ProviderFault, refused
from services.gateway.mockserver.wire import StreamEncoder, WireRequest, model_names, script_options, sse
from services.gateway.usage import TokenUsage, estimate_input_tokens

_STOP_WORDS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.PAUSE: "pause_turn",
}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicWire:
    """See Wire."""

    path = "/v1/messages"

    def __init__(self, any_model: str) -> None:
        self._any_model = any_model

    def decode(self, body: Any, attempt_id: str) -> WireRequest:
        """See Wire.decode."""
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
            raise refused("INVALID_REQUEST", "messages: at least one message is required")
        if not isinstance(body.get("max_tokens"), int):
            raise refused("INVALID_REQUEST", "max_tokens: Field required")
        model, shown = model_names(body, self._any_model)
        messages = [_message(message) for message in body["messages"]]
        if isinstance(system := body.get("system"), str):
            messages.insert(0, Message("system", (TextPart(system),)))
        schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
        call = Call(
            call_id=attempt_id,
            model=model,
            messages=tuple(messages),
            timeout_ms=0,
            parameters=Parameters(
                temperature=body.get("temperature"),
                top_p=body.get("top_p"),
                stop=tuple(body.get("stop_sequences") or ()),
                provider_options=script_options(body),
            ),
            tools=tuple(_tool(tool) for tool in body.get("tools") or ()),
            tool_choice=_tool_choice(body.get("tool_choice") or {}),
            response_json_schema=orjson.dumps(schema).decode() if schema else "",
        )
        request = ProviderRequest(attempt_id, model, call, body["max_tokens"])
        return WireRequest(request, shown, stream=bool(body.get("stream")))

    def stream_encoder(self, wanted: WireRequest) -> StreamEncoder:
        """See Wire.stream_encoder."""
        return _StreamEncoder(wanted)

    def whole(self, answer: Collector, wanted: WireRequest) -> Any:
        """See Wire.whole."""
        content: list[dict[str, Any]] = []
        if reasoning := answer.reasoning():
            content.append({"type": "thinking", "thinking": reasoning, "signature": "mock"})
        if text := answer.text():
            content.append({"type": "text", "text": text})
        content += [
            {"type": "tool_use", "id": part.id, "name": part.name, "input": orjson.loads(part.arguments_json)}
            for part in answer.parts()
            if isinstance(part, ToolCallPart)
        ]
        stop = _STOP_WORDS[answer.finish_reason or FinishReason.STOP]
        usage = _usage(answer.usage or TokenUsage(), answer.service_tier)
        return {**_head(wanted), "content": content, "stop_reason": stop, "usage": usage}

    def error(self, fault: ProviderFault) -> Any:
        """See Wire.error."""
        kind = _ERROR_TYPES.get(fault.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": fault.message}}


class _StreamEncoder:
    """Blocks are opened when their first piece comes and closed when another kind follows."""

    def __init__(self, wanted: WireRequest) -> None:
        self._wanted = wanted
        self._begun = False
        self._open = ""
        self._index = -1
        self._usage: TokenUsage | None = None
        self._tier = ""
        self._finish = FinishReason.STOP

    def encode(self, events: Iterable[Event]) -> bytes:
        """The events of the blocks."""
        written = [] if self._begun else [self._begin()]
        for event in events:
            match event:
                case TextDelta(text):
                    written.append(self._enter("text", {"type": "text", "text": ""}))
                    written.append(self._delta({"type": "text_delta", "text": text}))
                case ReasoningDelta(text):
                    written.append(self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""}))
                    written.append(self._delta({"type": "thinking_delta", "thinking": text}))
                case ToolCallDelta(index, id, name, arguments):
                    block = {"type": "tool_use", "id": id, "name": name, "input": {}}
                    written.append(self._enter(f"tool {index}", block))
                    if arguments:
                        written.append(self._delta({"type": "input_json_delta", "partial_json": arguments}))
                case UsageSoFar(usage, tier):
                    self._usage, self._tier = usage, tier
                case Finished(reason):
                    self._finish = reason
        return b"".join(written)

    def end(self) -> bytes:
        """The last block's end, the stop reason with the usage, and the last word."""
        delta = {
            "type": "message_delta",
            "delta": {"stop_reason": _STOP_WORDS[self._finish], "stop_sequence": None},
            "usage": _usage(self._usage or TokenUsage(), self._tier),
        }
        return self._leave() + sse(delta, "message_delta") + sse({"type": "message_stop"}, "message_stop")

    def _begin(self) -> bytes:
        self._begun = True
        usage = _usage(TokenUsage(input_tokens=estimate_input_tokens(self._wanted.request.call)))
        message = {**_head(self._wanted), "content": [], "stop_reason": None, "usage": usage}
        return sse({"type": "message_start", "message": message}, "message_start")

    def _enter(self, kind: str, block: dict[str, Any]) -> bytes:
        if self._open == kind:
            return b""
        left = self._leave()
        self._open = kind
        self._index += 1
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return left + sse(start, "content_block_start")

    def _leave(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return sse({"type": "content_block_stop", "index": self._index}, "content_block_stop")

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return sse({"type": "content_block_delta", "index": self._index, "delta": delta}, "content_block_delta")


def _head(wanted: WireRequest) -> dict[str, Any]:
    return {
        "id": f"msg_{wanted.request.attempt_id}",
        "type": "message",
        "role": "assistant",
        "model": wanted.shown_model,
        "stop_sequence": None,
    }


def _usage(usage: TokenUsage, tier: str = "") -> dict[str, Any]:
    """Their input excludes what was read from the cache."""
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "service_tier": tier or "standard",
    }


def _message(message: Any) -> Message:
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
        raise refused("INVALID_REQUEST", "messages: role must be user or assistant")
    content = message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    parts: list[Part] = []
    for block in blocks:
        match block.get("type"):
            case "text":
                parts.append(TextPart(block["text"]))
            case "tool_use":
                parts.append(ToolCallPart(block["id"], block["name"], orjson.dumps(block["input"]).decode()))
            case "tool_result":
                parts.append(ToolResultPart(block["tool_use_id"], str(block.get("content") or "")))
    return Message(message["role"], tuple(parts))


def _tool(tool: dict[str, Any]) -> Tool:
    return Tool(
        tool.get("name", ""), tool.get("description", ""), orjson.dumps(tool.get("input_schema") or {}).decode()
    )


def _tool_choice(choice: dict[str, Any]) -> str:
    kind = choice.get("type", "")
    return str(choice.get("name", "")) if kind == "tool" else {"any": "required"}.get(kind, kind)
