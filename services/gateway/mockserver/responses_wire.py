"""OpenAI responses, from the provider's side. Reference: https://platform.openai.com/docs/api-reference/responses."""

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
from services.gateway.chunks import Event, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
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

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_INCOMPLETE = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}


class ResponsesWire:
    """See Wire."""

    path = "/v1/responses"

    def __init__(self, any_model: str) -> None:
        self._any_model = any_model

    def decode(self, body: Any, attempt_id: str) -> WireRequest:
        """See Wire.decode."""
        asked = body.get("input") if isinstance(body, dict) else None
        items = [{"role": "user", "content": asked}] if isinstance(asked, str) and asked else asked
        if not isinstance(items, list) or not items:
            raise refused("INVALID_REQUEST", "input: expected a text or a list with at least one item")
        model, shown = model_names(body, self._any_model)
        # `text` and `reasoning` are objects of the format, and texts among the mock's options.
        objects = {name: value for name, value in body.items() if isinstance(value, dict)}
        schema = (objects.get("text", {}).get("format") or {}).get("schema")
        call = Call(
            call_id=attempt_id,
            model=model,
            messages=tuple(_message(item) for item in items),
            timeout_ms=0,
            parameters=Parameters(
                temperature=body.get("temperature"),
                top_p=body.get("top_p"),
                provider_options=script_options({k: v for k, v in body.items() if k not in objects}),
            ),
            tools=tuple(_tool(tool) for tool in body.get("tools") or () if tool.get("type") == "function"),
            tool_choice=_tool_choice(body.get("tool_choice")),
            response_json_schema=orjson.dumps(schema).decode() if schema else "",
        )
        limit = int(body.get("max_output_tokens") or DEFAULT_MAX_OUTPUT_TOKENS)
        return WireRequest(ProviderRequest(attempt_id, model, call, limit), shown, stream=bool(body.get("stream")))

    def stream_encoder(self, wanted: WireRequest) -> StreamEncoder:
        """See Wire.stream_encoder."""
        return _StreamEncoder(wanted)

    def whole(self, answer: Collector, wanted: WireRequest) -> Any:
        """See Wire.whole."""
        items = [_item(part, index) for index, part in enumerate(answer.parts())]
        return _ended(wanted, items, answer.finish_reason or FinishReason.STOP, answer.usage, answer.service_tier)

    def error(self, fault: ProviderFault) -> Any:
        """See Wire.error."""
        return {
            "error": {"message": fault.message, "type": fault.type or None, "param": None, "code": fault.code or None}
        }


class _StreamEncoder:
    """Items are opened when their first piece comes and closed when another one follows."""

    def __init__(self, wanted: WireRequest) -> None:
        self._wanted = wanted
        self._number = 0
        self._answer = Collector()
        self._open = ""
        self._closed: list[dict[str, Any]] = []

    def encode(self, events: Iterable[Event]) -> bytes:
        """The events of the items."""
        written = []
        if not self._number:
            written.append(self._event("created", response=_response(self._wanted, "in_progress", [])))
        for event in events:
            match event:
                case TextDelta(text):
                    written += [self._enter("message"), self._delta("output_text", text)]
                case ReasoningDelta(text) if text:
                    written += [self._enter("reasoning"), self._delta("reasoning_summary_text", text)]
                case ToolCallDelta(index, id, name, arguments):
                    begun = {"call_id": id, "name": name, "arguments": ""}
                    written.append(self._enter(f"function_call {index}", **begun))
                    if arguments:
                        written.append(self._delta("function_call_arguments", arguments))
            self._answer.add([event])
        return b"".join(written)

    def end(self) -> bytes:
        """The last item's end, and the whole answer."""
        left, answer = self._leave(), self._answer
        finish = answer.finish_reason or FinishReason.STOP
        response = _ended(self._wanted, self._closed, finish, answer.usage, answer.service_tier)
        return left + self._event("completed" if response["status"] == "completed" else "incomplete", response=response)

    def _enter(self, kind: str, **fields: Any) -> bytes:
        if self._open == kind:
            return b""
        left = self._leave()
        self._open = kind
        item = {"type": kind.partition(" ")[0], "id": f"item_{len(self._closed)}", **fields}
        return left + self._event("output_item.added", output_index=len(self._closed), item=item)

    def _leave(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        item = _item(self._answer.parts()[-1], len(self._closed))
        self._closed.append(item)
        return self._event("output_item.done", output_index=len(self._closed) - 1, item=item)

    def _delta(self, kind: str, text: str) -> bytes:
        return self._event(f"{kind}.delta", output_index=len(self._closed), delta=text)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        name = f"response.{kind}"
        return sse({"type": name, "sequence_number": self._number - 1, **fields}, name)


def _response(wanted: WireRequest, status: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"resp_{wanted.request.attempt_id}",
        "object": "response",
        "created_at": int(time.time()),
        "model": wanted.shown_model,
        "status": status,
        "output": items,
        "usage": None,
    }


def _ended(
    wanted: WireRequest, items: list[dict[str, Any]], finish: FinishReason, usage: TokenUsage | None, tier: str
) -> dict[str, Any]:
    reason = _INCOMPLETE.get(finish)
    body = _response(wanted, "incomplete" if reason else "completed", items)
    body["incomplete_details"] = {"reason": reason} if reason else None
    body["service_tier"] = tier or "default"
    if usage is not None:
        body["usage"] = {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
    return body


def _item(part: Part, index: int) -> dict[str, Any]:
    """A part of the answer as an item of the output."""
    item: dict[str, Any]
    match part:
        case ToolCallPart(id, name, arguments):
            item = {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
        case ReasoningPart(text):
            summary = [{"type": "summary_text", "text": text}]
            item = {"type": "reasoning", "summary": summary, "encrypted_content": "mock"}
        case _:
            text = part.text if isinstance(part, TextPart) else ""
            content = [{"type": "output_text", "text": text, "annotations": []}]
            item = {"type": "message", "role": "assistant", "content": content}
    return {"id": f"item_{index}", "status": "completed", **item}


def _message(item: Any) -> Message:
    match item:
        case {"type": "function_call", "call_id": str(id), "name": str(name), "arguments": str(arguments)}:
            return Message("assistant", (ToolCallPart(id, name, arguments),))
        case {"type": "function_call_output", "call_id": str(id), "output": output}:
            return Message("tool", (ToolResultPart(id, str(output)),))
        case {"type": "reasoning"}:
            return Message("assistant", (ReasoningPart(""),))
        case {"role": role, "content": str(text)} if role in _ROLES:
            return Message(_ROLES[role], (TextPart(text),))
        case {"role": role, "content": list(content)} if role in _ROLES:
            return Message(_ROLES[role], tuple(_part(part) for part in content))
    raise refused("INVALID_REQUEST", f"input: expected messages with a role, one of {', '.join(_ROLES)}, or items")


def _part(part: Any) -> Part:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)}:
            return TextPart(text)
        case {"type": "input_image", "image_url": str(url)}:
            return ImagePart(url)
    raise refused("INVALID_REQUEST", "input: content has input_text, output_text and input_image")


def _tool(tool: dict[str, Any]) -> Tool:
    schema = tool.get("parameters")
    return Tool(tool.get("name", ""), tool.get("description", ""), orjson.dumps(schema).decode() if schema else "")


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str(choice.get("name", ""))
    return choice if isinstance(choice, str) else ""
