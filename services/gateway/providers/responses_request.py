"""A call as a request of OpenAI's responses API. Nothing is stored there: reasoning comes encrypted, and goes along.

Reference: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Iterable
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
from services.gateway.failures import refused
from services.gateway.providers.request_parts import data_url, json_schema, with_options

_RESERVED_OPTIONS = frozenset({"model", "input", "stream", "max_output_tokens", "store", "background"})
_FIXED_TOOL_CHOICES = frozenset({"auto", "none", "required"})
_ABSENT = ("seed", "stop", "frequency_penalty", "presence_penalty")


def responses_request(request: ProviderRequest) -> dict[str, Any]:
    """The request's JSON; always streamed. Raises CallFailed(INVALID_FIELD), not dispatched."""
    call, parameters = request.call, request.call.parameters
    _check_parameters(call)
    body: dict[str, Any] = {
        "model": request.model,
        "input": [item for message in call.messages for item in _items(message)],
        "stream": True,
        "max_output_tokens": request.max_output_tokens,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if parameters.temperature is not None:
        body["temperature"] = parameters.temperature
    if parameters.top_p is not None:
        body["top_p"] = parameters.top_p
    if parameters.reasoning_effort:
        body["reasoning"] = {"effort": parameters.reasoning_effort, "summary": "auto"}
    if call.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": json_schema(
                    tool.parameters_json_schema or '{"type": "object", "properties": {}}',
                    f"call.tools[{index}].parameters_json_schema",
                ),
                "strict": False,
            }
            for index, tool in enumerate(call.tools)
        ]
    if call.tool_choice:
        fixed = call.tool_choice in _FIXED_TOOL_CHOICES
        body["tool_choice"] = call.tool_choice if fixed else {"type": "function", "name": call.tool_choice}
    if call.response_json_schema:
        schema = json_schema(call.response_json_schema, "call.response_json_schema")
        body["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    return with_options(body, call, _RESERVED_OPTIONS)


def _check_parameters(call: Call) -> None:
    """The API has none of these: a call that asks for them is told so, and not given something else."""
    for name in _ABSENT:
        if getattr(call.parameters, name) not in (None, ()):
            message = f"the responses API takes no {name}; leave it out"
            raise refused("INVALID_FIELD", message, field=f"call.parameters.{name}")


def _items(message: Message) -> Iterable[dict[str, Any]]:
    """One of our messages as items: text and pictures stay together, everything else is an item of its own."""
    said: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case TextPart(text):
                said.append({"type": "output_text" if message.role == "assistant" else "input_text", "text": text})
                continue
            case ImagePart():
                said.append({"type": "input_image", "image_url": data_url(part)})
                continue
        if said:
            yield {"role": message.role, "content": said}
            said = []
        match part:
            case ToolCallPart(id, name, arguments):
                yield {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
            case ToolResultPart(tool_call_id, text):
                yield {"type": "function_call_output", "call_id": tool_call_id, "output": text}
            case ReasoningPart():
                yield from _reasoning(part)
    if said:
        yield {"role": message.role, "content": said}


def _reasoning(part: ReasoningPart) -> Iterable[dict[str, Any]]:
    """The item as it came; nothing for reasoning of other providers, or without what lets it go back unstored."""
    try:
        data = orjson.loads(part.provider_data) if part.provider_data else {}
    except orjson.JSONDecodeError:
        return
    if isinstance(data, dict) and data.get("format") == "openai_responses":
        item = data.get("item")
        if isinstance(item, dict) and item.get("encrypted_content"):
            yield item
