"""A call as an Anthropic messages request; the shapes are the SDK's own TypedDicts.

Reference: https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal, cast

import orjson
from anthropic.types import (
    ImageBlockParam,
    MessageParam,
    RedactedThinkingBlockParam,
    TextBlockParam,
    ThinkingBlockParam,
    ToolChoiceParam,
    ToolParam,
    ToolResultBlockParam,
    ToolUseBlockParam,
    message_create_params,
)

from services.gateway.calls import (
    Call,
    ImagePart,
    Message,
    Part,
    ProviderRequest,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.failures import refused
from services.gateway.providers.request_parts import json_schema, with_options

_RESERVED_OPTIONS = frozenset({"model", "messages", "system", "stream", "max_tokens"})

# Tokens of thinking for each effort, for models that take a budget; at least 1,024 by the API's rule.
_THINKING_BUDGETS: Mapping[str, int] = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384}
_EFFORTS: Mapping[str, Literal["low", "medium", "high"]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
}

_Block = (
    TextBlockParam
    | ImageBlockParam
    | ToolUseBlockParam
    | ToolResultBlockParam
    | ThinkingBlockParam
    | RedactedThinkingBlockParam
)


def anthropic_request(request: ProviderRequest) -> dict[str, Any]:
    """The request's JSON; always streamed. Raises CallFailed(INVALID_FIELD), not dispatched."""
    call, parameters = request.call, request.call.parameters
    body: message_create_params.MessageCreateParamsStreaming = {
        "model": request.model,
        "max_tokens": request.max_output_tokens,
        "messages": _conversation(call),
        "stream": True,
    }
    if system := "\n\n".join(message.text for message in call.messages if message.role == "system"):
        body["system"] = system
    if parameters.stop:
        body["stop_sequences"] = list(parameters.stop)
    if call.tools:
        body["tools"] = _tools(call)
    if call.tool_choice:
        body["tool_choice"] = _tool_choice(call.tool_choice)
    _set_output(request, body)
    sent = cast("dict[str, Any]", body)
    # Older models take these; the SDK's newest shapes no longer name them.
    if parameters.temperature is not None:
        sent["temperature"] = parameters.temperature
    if parameters.top_p is not None:
        sent["top_p"] = parameters.top_p
    return with_options(sent, call, _RESERVED_OPTIONS)


def _set_output(request: ProviderRequest, body: message_create_params.MessageCreateParamsStreaming) -> None:
    """Thinking, effort and the answer's schema."""
    call, effort = request.call, request.call.parameters.reasoning_effort
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
    elif effort and request.reasoning_style == "adaptive":
        body["thinking"] = {"type": "adaptive"}
        body["output_config"] = {"effort": _EFFORTS[effort]}
    elif effort:
        budget = min(_THINKING_BUDGETS[effort], request.max_output_tokens - 1)
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    if call.response_json_schema:
        schema = json_schema(call.response_json_schema, "call.response_json_schema")
        output = body.setdefault("output_config", {})
        output["format"] = {"type": "json_schema", "schema": schema}


def _conversation(call: Call) -> list[MessageParam]:
    """User and assistant turns; tool results are the user's. System messages are a field of their own."""
    turns: list[MessageParam] = []
    for message in call.messages:
        if message.role == "system":
            continue
        blocks = [block for part in message.parts if (block := _block(message, part)) is not None]
        if blocks:
            role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
            turns.append(cast("MessageParam", {"role": role, "content": blocks}))
    return turns


def _block(message: Message, part: Part) -> _Block | None:
    match part:
        case TextPart(text):
            # The API refuses empty text blocks.
            return {"type": "text", "text": text} if text else None
        case ImagePart():
            return _image(part)
        case ToolCallPart(id, name, arguments):
            return {"type": "tool_use", "id": id, "name": name, "input": _tool_input(arguments)}
        case ToolResultPart(tool_call_id, text, is_error):
            return {"type": "tool_result", "tool_use_id": tool_call_id, "content": text, "is_error": is_error}
        case ReasoningPart():
            return _thinking(part) if message.role == "assistant" else None


def _image(part: ImagePart) -> ImageBlockParam:
    if part.url.startswith("data:") and "," in part.url:
        head, _, data = part.url.partition(",")
        media_type = head.removeprefix("data:").partition(";")[0]
        return _inline_image(media_type, data)
    if part.url:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    return _inline_image(part.media_type, base64.b64encode(part.data).decode())


def _inline_image(media_type: str, data: str) -> ImageBlockParam:
    kind = cast("Any", media_type or "image/png")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def _thinking(part: ReasoningPart) -> ThinkingBlockParam | RedactedThinkingBlockParam | None:
    """The block as Anthropic sent it; None for reasoning of other providers, which carries no signature of theirs."""
    try:
        data = orjson.loads(part.provider_data) if part.provider_data else {}
    except orjson.JSONDecodeError:
        return None
    if not isinstance(data, dict) or data.get("format") != "anthropic":
        return None
    if "redacted" in data:
        return {"type": "redacted_thinking", "data": data["redacted"]}
    if not data.get("signature"):
        return None
    return {"type": "thinking", "thinking": part.text, "signature": data["signature"]}


def _tool_input(arguments_json: str) -> dict[str, object]:
    """The arguments as an object, which the API demands; what is no object is wrapped rather than lost."""
    try:
        value = orjson.loads(arguments_json or "{}")
    except orjson.JSONDecodeError:
        return {"arguments": arguments_json}
    return value if isinstance(value, dict) else {"arguments": value}


def _tools(call: Call) -> list[ToolParam]:
    made: list[ToolParam] = []
    for index, tool in enumerate(call.tools):
        schema = tool.parameters_json_schema or '{"type": "object", "properties": {}}'
        made.append(
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": json_schema(schema, f"call.tools[{index}].parameters_json_schema"),
            }
        )
    return made


def _tool_choice(choice: str) -> ToolChoiceParam:
    match choice:
        case "auto":
            return {"type": "auto"}
        case "none":
            return {"type": "none"}
        case "required":
            return {"type": "any"}
        case name:
            return {"type": "tool", "name": name}


def check_seed(call: Call) -> None:
    """Anthropic has no seed: a call that asks for repeatable sampling is told so, and not given something else."""
    if call.parameters.seed is not None:
        raise refused("INVALID_FIELD", "Anthropic models take no seed; leave it out", field="call.parameters.seed")
