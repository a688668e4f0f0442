"""A call as a Gemini request.

Reference: https://ai.google.dev/api/generate-content, and https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping
from typing import Any

import orjson

from services.gateway.calls import (
    Call,
    ImagePart,
    Message,
    ProviderRequest,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.providers.request_parts import json_schema, with_options

_RESERVED_OPTIONS = frozenset(
    {"model", "contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "stream"}
)
# Tokens of thinking for each effort, for models that take a budget (2.5); models that take a level (3) take the word.
_THINKING_BUDGETS: Mapping[str, int] = {"none": 0, "minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384}
_THINKING_LEVELS: Mapping[str, str] = {
    # These models always think.
    "none": "minimal",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
}
_TOOL_MODES: Mapping[str, str] = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def gemini_request(request: ProviderRequest) -> dict[str, Any]:
    """The request's JSON. Raises CallFailed(INVALID_FIELD), not dispatched."""
    call = request.call
    body: dict[str, Any] = {"contents": _contents(call), "generationConfig": _generation_config(request)}
    if system := "\n\n".join(message.text for message in call.messages if message.role == "system"):
        body["systemInstruction"] = {"parts": [{"text": system}]}
    if call.tools:
        body["tools"] = [{"functionDeclarations": _declarations(call)}]
    if call.tool_choice:
        mode = _TOOL_MODES.get(call.tool_choice)
        config = {"mode": mode} if mode else {"mode": "ANY", "allowedFunctionNames": [call.tool_choice]}
        body["toolConfig"] = {"functionCallingConfig": config}
    return with_options(body, call, _RESERVED_OPTIONS)


def _generation_config(request: ProviderRequest) -> dict[str, Any]:
    call, parameters = request.call, request.call.parameters
    config: dict[str, Any] = {"maxOutputTokens": request.max_output_tokens}
    numbers = {
        "temperature": parameters.temperature,
        "topP": parameters.top_p,
        "seed": parameters.seed,
        "frequencyPenalty": parameters.frequency_penalty,
        "presencePenalty": parameters.presence_penalty,
    }
    config.update({name: value for name, value in numbers.items() if value is not None})
    if parameters.stop:
        config["stopSequences"] = list(parameters.stop)
    if parameters.reasoning_effort:
        config["thinkingConfig"] = _thinking(request)
    if call.response_json_schema:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = json_schema(call.response_json_schema, "call.response_json_schema")
    return config


def _thinking(request: ProviderRequest) -> dict[str, Any]:
    effort = request.call.parameters.reasoning_effort
    if request.reasoning_style == "level":
        return {"thinkingLevel": _THINKING_LEVELS[effort], "includeThoughts": effort != "none"}
    budget = min(_THINKING_BUDGETS[effort], request.max_output_tokens - 1)
    return {"thinkingBudget": budget, "includeThoughts": effort != "none"}


def _contents(call: Call) -> list[dict[str, Any]]:
    """Turns of the user and the model. Neighbours of one role are one: results of parallel calls must be together."""
    said = [part for message in call.messages for part in message.parts]
    names = {part.id: part.name for part in said if isinstance(part, ToolCallPart)}
    turns: list[dict[str, Any]] = []
    for message in call.messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = _model_parts(message) if role == "model" else _user_parts(message, names)
        if not parts:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def _user_parts(message: Message, names: Mapping[str, str]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case TextPart(text):
                parts.append({"text": text})
            case ImagePart():
                parts.append(_image(part))
            case ToolResultPart(tool_call_id, text, is_error):
                result = {"id": tool_call_id, "name": names.get(tool_call_id, tool_call_id)}
                parts.append({"functionResponse": {**result, "response": {"error" if is_error else "output": text}}})
    return parts


def _model_parts(message: Message) -> list[dict[str, Any]]:
    """The parts as Gemini sent them; each signature goes where it was."""
    parts: list[dict[str, Any]] = []
    signature = ""
    for part in message.parts:
        match part:
            case TextPart(text):
                if text:
                    parts.append({"text": text})
            case ImagePart():
                parts.append(_image(part))
            case ToolCallPart(id, name, arguments):
                call: dict[str, Any] = {"functionCall": {"id": id, "name": name, "args": _arguments(arguments)}}
                if signature:
                    call["thoughtSignature"] = signature
                    signature = ""
                parts.append(call)
            case ReasoningPart():
                data = _own_data(part)
                signature = data.get("call_signature") or signature
                if kept := _thought(part, data):
                    parts.append(kept)
    return parts


def _thought(part: ReasoningPart, data: dict[str, Any]) -> dict[str, Any]:
    """A thought or a part that was kept whole; empty for reasoning of other providers."""
    if isinstance(whole := data.get("part"), dict):
        return whole
    if not data or not part.text:
        return {}
    thought: dict[str, Any] = {"text": part.text, "thought": True}
    if signature := data.get("signature"):
        thought["thoughtSignature"] = signature
    return thought


def _own_data(part: ReasoningPart) -> dict[str, Any]:
    try:
        data = orjson.loads(part.provider_data) if part.provider_data else {}
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) and data.get("format") == "gemini" else {}


def _image(part: ImagePart) -> dict[str, Any]:
    if part.url.startswith("data:") and "," in part.url:
        head, _, data = part.url.partition(",")
        return _inline(head.removeprefix("data:").partition(";")[0], data)
    if part.url:
        media_type = part.media_type or mimetypes.guess_type(part.url.partition("?")[0])[0] or "image/png"
        return {"fileData": {"fileUri": part.url, "mimeType": media_type}}
    return _inline(part.media_type, base64.b64encode(part.data).decode())


def _inline(media_type: str, data: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type or "image/png", "data": data}}


def _arguments(arguments_json: str) -> dict[str, Any]:
    """The arguments as an object, which the API demands; what is no object is wrapped rather than lost."""
    try:
        value = orjson.loads(arguments_json or "{}")
    except orjson.JSONDecodeError:
        return {"arguments": arguments_json}
    return value if isinstance(value, dict) else {"arguments": value}


def _declarations(call: Call) -> list[dict[str, Any]]:
    declared = []
    for index, tool in enumerate(call.tools):
        made: dict[str, Any] = {"name": tool.name, "description": tool.description}
        if tool.parameters_json_schema:
            field = f"call.tools[{index}].parameters_json_schema"
            made["parametersJsonSchema"] = json_schema(tool.parameters_json_schema, field)
        declared.append(made)
    return declared
