"""Gemini's generateContent and streamGenerateContent, from the provider's side."""

from __future__ import annotations

import base64
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

_FINISH_WORDS = {
    FinishReason.STOP: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    # Theirs is the word for tools, too.
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.CONTENT_FILTER: "SAFETY",
    FinishReason.PAUSE: "STOP",
}
_ERROR_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
_METHODS = {"generateContent": False, "streamGenerateContent": True}
_TOOL_CHOICES = {"AUTO": "auto", "NONE": "none", "ANY": "required"}
_ROLES: dict[str, Role] = {"user": "user", "model": "assistant"}


class GeminiWire:
    """See Wire."""

    path = "/v1beta/{resource:(models/)?}{model:.+}:{method}"

    def __init__(self, any_model: str) -> None:
        self._any_model = any_model

    def decode(self, body: Any, attempt_id: str) -> WireRequest:
        """See Wire.decode."""
        if not isinstance(body, dict) or not isinstance(body.get("contents"), list) or not body["contents"]:
            raise refused("INVALID_REQUEST", "contents: expected a list with at least one content")
        if body.get("method") not in _METHODS:
            raise refused("MODEL_NOT_FOUND", f"no method {body.get('method')!r}")
        model, shown = model_names(body, self._any_model)
        config = body.get("generationConfig") or {}
        messages = [_message(content) for content in body["contents"]]
        if system := (body.get("systemInstruction") or {}).get("parts"):
            messages.insert(0, Message("system", tuple(TextPart(part.get("text", "")) for part in system)))
        schema = config.get("responseJsonSchema")
        declared = [tool for entry in body.get("tools") or () for tool in entry.get("functionDeclarations") or ()]
        call = Call(
            call_id=attempt_id,
            model=model,
            messages=tuple(messages),
            timeout_ms=0,
            parameters=_parameters(config, body),
            tools=tuple(_tool(tool) for tool in declared),
            tool_choice=_tool_choice((body.get("toolConfig") or {}).get("functionCallingConfig") or {}),
            response_json_schema=orjson.dumps(schema).decode() if schema else "",
        )
        limit = int(config.get("maxOutputTokens") or DEFAULT_MAX_OUTPUT_TOKENS)
        return WireRequest(ProviderRequest(attempt_id, model, call, limit), shown, stream=_METHODS[body["method"]])

    def stream_encoder(self, wanted: WireRequest) -> StreamEncoder:
        """See Wire.stream_encoder."""
        return _StreamEncoder(wanted)

    def whole(self, answer: Collector, wanted: WireRequest) -> Any:
        """See Wire.whole."""
        parts: list[dict[str, Any]] = []
        if reasoning := answer.reasoning():
            parts.append({"text": reasoning, "thought": True})
        if text := answer.text():
            parts.append({"text": text})
        parts += [
            _call_part(part.name, part.arguments_json) for part in answer.parts() if isinstance(part, ToolCallPart)
        ]
        finish = _FINISH_WORDS[answer.finish_reason or FinishReason.STOP]
        body = _body(wanted, parts, finish)
        if answer.usage is not None:
            body["usageMetadata"] = _usage(answer.usage, answer.service_tier)
        return body

    def error(self, fault: ProviderFault) -> Any:
        """See Wire.error."""
        status = _ERROR_STATUSES.get(fault.status, "INTERNAL")
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": fault.code}] if fault.code else []
        return {"error": {"code": fault.status, "message": fault.message, "status": status, "details": details}}


class _StreamEncoder:
    """Each piece is an answer of its own; calls are sent when they are whole, and the end has the reason and usage."""

    def __init__(self, wanted: WireRequest) -> None:
        self._wanted = wanted
        self._calls: dict[int, list[str]] = {}
        self._usage: TokenUsage | None = None
        self._tier = ""
        self._finish = FinishReason.STOP

    def encode(self, events: Iterable[Event]) -> bytes:
        """The bytes of some events."""
        written = []
        for event in events:
            match event:
                case TextDelta(text):
                    written.append(sse(_body(self._wanted, [{"text": text}])))
                case ReasoningDelta(text) if text:
                    written.append(sse(_body(self._wanted, [{"text": text, "thought": True}])))
                case ToolCallDelta(index, _, name, arguments):
                    call = self._calls.setdefault(index, ["", ""])
                    call[0] += name
                    call[1] += arguments
                case UsageSoFar(usage, tier):
                    self._usage, self._tier = usage, tier
                case Finished(reason):
                    self._finish = reason
        return b"".join(written)

    def end(self) -> bytes:
        """The calls, and the last answer: no text, but the reason and the usage."""
        calls = [_call_part(name, arguments) for name, arguments in self._calls.values()]
        body = _body(self._wanted, calls or [{"text": ""}], _FINISH_WORDS[self._finish])
        if self._usage is not None:
            body["usageMetadata"] = _usage(self._usage, self._tier)
        return sse(body)


def _body(wanted: WireRequest, parts: list[dict[str, Any]], finish: str = "") -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "modelVersion": wanted.shown_model,
        "responseId": wanted.request.attempt_id,
    }


def _call_part(name: str, arguments_json: str) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": orjson.loads(arguments_json or "{}")}}


def _usage(usage: TokenUsage, tier: str) -> dict[str, Any]:
    """Their candidates leave the thoughts out."""
    return {
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cache_read_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
        "serviceTier": tier or "standard",
    }


def _parameters(config: dict[str, Any], body: dict[str, Any]) -> Parameters:
    return Parameters(
        temperature=config.get("temperature"),
        top_p=config.get("topP"),
        seed=config.get("seed"),
        stop=tuple(config.get("stopSequences") or ()),
        provider_options=script_options(body),
    )


def _message(content: Any) -> Message:
    role = content.get("role", "user") if isinstance(content, dict) else None
    if role not in _ROLES:
        raise refused("INVALID_REQUEST", "contents: role must be user or model")
    return Message(_ROLES[role], tuple(part for entry in content.get("parts") or () for part in _parts(entry)))


def _parts(entry: dict[str, Any]) -> Iterable[Part]:
    if call := entry.get("functionCall"):
        yield ToolCallPart(call.get("id", ""), call["name"], orjson.dumps(call.get("args") or {}).decode())
    elif result := entry.get("functionResponse"):
        yield ToolResultPart(result.get("id", ""), orjson.dumps(result["response"]).decode())
    elif blob := entry.get("inlineData"):
        yield ImagePart(data=base64.b64decode(blob["data"]), media_type=blob["mimeType"])
    elif file := entry.get("fileData"):
        yield ImagePart(url=file["fileUri"], media_type=file.get("mimeType", ""))
    elif entry.get("text") and not entry.get("thought"):
        yield TextPart(entry["text"])


def _tool(tool: dict[str, Any]) -> Tool:
    schema = tool.get("parametersJsonSchema") or {}
    return Tool(tool.get("name", ""), tool.get("description", ""), orjson.dumps(schema).decode())


def _tool_choice(config: dict[str, Any]) -> str:
    allowed: list[str] = config.get("allowedFunctionNames") or []
    return allowed[0] if len(allowed) == 1 else _TOOL_CHOICES.get(config.get("mode", ""), "")
