"""Requests as domain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from llmlab.api.common.v1 import content_pb2, value_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from services.gateway.calls import (
    Caching,
    Call,
    ImagePart,
    Message,
    OptionValue,
    Parameters,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from services.runtime.errors import InvalidField
from services.runtime.ids import new_id

_ROLES: dict[int, Role] = {
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
    content_pb2.ROLE_ASSISTANT: "assistant",
    content_pb2.ROLE_TOOL: "tool",
}
_CACHE_MODES: dict[int, Literal["off", "use", "refresh"]] = {
    gateway_pb2.CACHE_MODE_USE: "use",
    gateway_pb2.CACHE_MODE_REFRESH: "refresh",
    gateway_pb2.CACHE_MODE_OFF: "off",
}
_FIXED_TOOL_CHOICES = frozenset({"", "auto", "none", "required"})


def decode_call(
    message: gateway_pb2.Call,
    field: str,
    *,
    default_timeout_ms: int,
    default_retries: int,
    retry_ambiguous: bool,
    fallbacks: bool,
    limit_ms: float,
    reuse_deterministic: bool,
    waits_for_cost: bool = True,
) -> Call:
    """The call, with what its caller left to the gateway filled in. `field` is its path, for errors.

    `default_retries`, `retry_ambiguous` and `fallbacks` hold where the call does not say; `limit_ms` is what its RPC's
    deadline leaves it. `reuse_deterministic`: a deterministic call that says nothing about the cache uses it. Raises
    InvalidField for what the contract's rules cannot say.
    """
    tools = decode_tools(message.tools, message.tool_choice, f"{field}.tool_choice")
    timeout_ms = message.timeout_ms or default_timeout_ms
    resilience = message.resilience
    parameters = decode_parameters(message.parameters) if message.HasField("parameters") else Parameters()
    minted = "" if message.call_id else new_id("call")
    return Call(
        call_id=message.call_id or minted,
        model=message.model,
        messages=tuple(
            [
                Message(
                    _ROLES[entry.role],
                    tuple([decode_part(part, f"{field}.messages[{index}]") for part in entry.parts]),
                )
                for index, entry in enumerate(message.messages)
            ]
        ),
        timeout_ms=max(1, int(min(timeout_ms, limit_ms))),
        parameters=parameters,
        tools=tools,
        tool_choice=message.tool_choice,
        response_json_schema=message.response_json_schema,
        # An id that was minted here is known to nobody else: it can be its own nonce.
        dispatch_nonce=message.dispatch_nonce or minted or new_id("nonce"),
        run_id=message.run_id,
        tags=dict(message.tags),
        include_raw=message.include_raw,
        ignore_circuit_breaker=resilience.ignore_circuit_breaker,
        retries_max=resilience.retries_max if resilience.HasField("retries_max") else default_retries,
        retry_ambiguous=resilience.retry_ambiguous or retry_ambiguous,
        caching=_caching(message.cache, by_default=reuse_deterministic and parameters.deterministic),
        fallbacks=resilience.fallbacks if resilience.HasField("fallbacks") else fallbacks,
        hedge_after_ms=resilience.hedge_after_ms if resilience.HasField("hedge_after_ms") else None,
        waits_for_cost=waits_for_cost,
        traceparent=message.traceparent,
    )


def decode_tools(tools: Iterable[gateway_pb2.Tool], choice: str, field: str) -> tuple[Tool, ...]:
    """The tools. Raises InvalidField, naming `field`, for a choice that is none of them."""
    decoded = tuple(Tool(tool.name, tool.description, tool.parameters_json_schema) for tool in tools)
    if choice not in _FIXED_TOOL_CHOICES and choice not in {tool.name for tool in decoded}:
        raise InvalidField(field, f"{choice!r} is not auto, none, required or the name of a tool")
    return decoded


def _caching(message: gateway_pb2.CacheControl, *, by_default: bool) -> Caching:
    mode = _CACHE_MODES.get(message.mode, "use" if by_default else "off")
    return Caching(mode, message.max_age_s)


def decode_part(part: content_pb2.ContentPart, field: str) -> Part:
    """A part of a message. Raises InvalidField for an empty one."""
    match part.WhichOneof("kind"):
        case "text":
            return TextPart(part.text)
        case "image":
            return ImagePart(part.image.url, part.image.data, part.image.media_type)
        case "tool_call":
            return ToolCallPart(part.tool_call.id, part.tool_call.name, part.tool_call.arguments_json)
        case "tool_result":
            result = part.tool_result
            return ToolResultPart(result.tool_call_id, result.text, result.is_error)
        case "reasoning":
            return ReasoningPart(part.reasoning.text, part.reasoning.provider_data)
    raise InvalidField(f"{field}.parts", "a part is empty: set text, image, tool_call, tool_result or reasoning")


def decode_parameters(message: gateway_pb2.Parameters) -> Parameters:
    """How to sample."""
    options = message.provider_options
    return Parameters(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
        frequency_penalty=message.frequency_penalty if message.HasField("frequency_penalty") else None,
        presence_penalty=message.presence_penalty if message.HasField("presence_penalty") else None,
        reasoning_effort=message.reasoning_effort,
        provider_options={name: _option(options[name]) for name in options},
    )


def _option(value: value_pb2.Value) -> OptionValue:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_option(item) for item in value.list_value.values]
    return None
