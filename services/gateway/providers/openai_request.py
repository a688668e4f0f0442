"""A call as an OpenAI chat-completions request; the shapes are the SDK's own TypedDicts.

Reference: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartParam,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCallParam,
    ChatCompletionMessageParam,
    ChatCompletionToolChoiceOptionParam,
    ChatCompletionToolMessageParam,
    completion_create_params,
)

from services.gateway.calls import (
    Call,
    ImagePart,
    Message,
    ProviderRequest,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.providers.request_parts import data_url, json_schema, with_options

# Options that would make the answer larger than the hold, or the answer's form another one.
_RESERVED_OPTIONS = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n"}
)


@dataclass(frozen=True, slots=True)
class OpenAiDialect:
    """In what a compatible server differs from OpenAI; data of the catalogue."""

    max_tokens_field: str = "max_tokens"
    stream_options: bool = True
    api: Literal["chat", "responses"] = "chat"
    seed_field: str = "seed"
    names_finish: bool = True


def openai_request(request: ProviderRequest, dialect: OpenAiDialect) -> dict[str, Any]:
    """The request's JSON. Always streamed: a unary call at a provider goes on, and costs, after its caller has left.

    Raises CallFailed(INVALID_FIELD), not dispatched, where a schema is not JSON or an option is reserved.
    """
    call, parameters = request.call, request.call.parameters
    body: completion_create_params.CompletionCreateParamsStreaming = {
        "model": request.model,
        "messages": [converted for message in call.messages for converted in _messages(message)],
        "stream": True,
    }
    if dialect.stream_options:
        body["stream_options"] = {"include_usage": True}
    if parameters.temperature is not None:
        body["temperature"] = parameters.temperature
    if parameters.top_p is not None:
        body["top_p"] = parameters.top_p
    if parameters.frequency_penalty is not None:
        body["frequency_penalty"] = parameters.frequency_penalty
    if parameters.presence_penalty is not None:
        body["presence_penalty"] = parameters.presence_penalty
    if parameters.stop:
        body["stop"] = list(parameters.stop)
    if parameters.reasoning_effort:
        body["reasoning_effort"] = cast("Any", parameters.reasoning_effort)
    if call.tools:
        body["tools"] = [_tool(index, tool) for index, tool in enumerate(call.tools)]
    if call.tool_choice:
        body["tool_choice"] = _tool_choice(call.tool_choice)
    if call.response_json_schema:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": _response_schema(call), "strict": True},
        }
    sent: dict[str, Any] = {**body, dialect.max_tokens_field: request.max_output_tokens}
    if parameters.seed is not None:
        sent[dialect.seed_field] = parameters.seed
    return with_options(sent, call, _RESERVED_OPTIONS)


def _response_schema(call: Call) -> dict[str, object]:
    return json_schema(call.response_json_schema, "call.response_json_schema")


def _messages(message: Message) -> Iterable[ChatCompletionMessageParam]:
    """One of our messages can be several of theirs: each tool result is a message."""
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            result: ChatCompletionToolMessageParam = {
                "role": "tool",
                "tool_call_id": part.tool_call_id,
                "content": part.text,
            }
            yield result
    rest = [part for part in message.parts if not isinstance(part, ToolResultPart)]
    if not rest:
        return
    if message.role == "assistant":
        yield _assistant(message)
    elif message.role == "system":
        yield {"role": "system", "content": message.text}
    elif all(isinstance(part, TextPart) for part in rest):
        yield {"role": "user", "content": message.text}
    else:
        yield {"role": "user", "content": [_content(part) for part in rest if isinstance(part, TextPart | ImagePart)]}


def _content(part: TextPart | ImagePart) -> ChatCompletionContentPartParam:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": data_url(part)}}


def _assistant(message: Message) -> ChatCompletionAssistantMessageParam:
    made: ChatCompletionAssistantMessageParam = {"role": "assistant", "content": message.text or None}
    calls: list[ChatCompletionMessageFunctionToolCallParam] = [
        {"type": "function", "id": part.id, "function": {"name": part.name, "arguments": part.arguments_json}}
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    if calls:
        made["tool_calls"] = calls
    for part in message.parts:
        if isinstance(part, ReasoningPart):
            cast("dict[str, Any]", made).update(reasoning_fields(part))
    return made


def reasoning_fields(part: ReasoningPart) -> dict[str, Any]:
    """The fields that carry reasoning back, as the provider that made it sent them; none for reasoning of others."""
    try:
        data = orjson.loads(part.provider_data) if part.provider_data else {}
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(data, dict) or data.get("format") != "openai":
        return {}
    fields: dict[str, Any] = {}
    if isinstance(name := data.get("field"), str):
        fields[name] = part.text
    if "details" in data:
        fields["reasoning_details"] = data["details"]
    return fields


def _tool(index: int, tool: Tool) -> ChatCompletionFunctionToolParam:
    schema = tool.parameters_json_schema or '{"type": "object", "properties": {}}'
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": json_schema(schema, f"call.tools[{index}].parameters_json_schema"),
        },
    }


def _tool_choice(choice: str) -> ChatCompletionToolChoiceOptionParam:
    fixed: dict[str, ChatCompletionToolChoiceOptionParam] = {"auto": "auto", "none": "none", "required": "required"}
    return fixed.get(choice) or {"type": "function", "function": {"name": choice}}
