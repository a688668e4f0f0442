"""The mock: a real provider without a network, deterministic and scriptable.

The same call gives the same answer, the same errors and the same (nominal) delays: everything is drawn from a hash of
the model, the prompt, the parameters and the repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

import orjson

from services.gateway.calls import Call, ProviderRequest
from services.gateway.chunks import (
    Event,
    Finished,
    FinishReason,
    RawBytes,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageSoFar,
    Vectors,
)
from services.gateway.failures import CallFailed, Failure, ProviderFault, classify, refused
from services.gateway.providers.mock_script import (
    ERROR_KINDS,
    MOCK_MODELS,
    TEXT_SEPARATOR,
    TOKEN_CHARACTERS,
    MockModel,
    MockScript,
    with_options,
)
from services.gateway.providers.mock_text import mock_text, mock_vector, value_of_schema
from services.gateway.providers.request_parts import json_schema
from services.gateway.tiers import reported_tier
from services.gateway.usage import TokenUsage, estimate_input_tokens, estimate_tokens
from services.runtime import telemetry
from services.runtime.clock import SYSTEM_CLOCK, Clock

_DEFAULT_TEMPERATURE = 0.7
_EMBEDDING_DIMENSIONS = 64


class MockFailed(CallFailed):
    """The mock fails as its script says. `fault` is what a provider would say; None: its connection breaks."""

    def __init__(self, fault: ProviderFault | None) -> None:
        message = "the connection to the mock broke before it answered"
        super().__init__(Failure("NETWORK_ERROR", message, dispatched=True) if fault is None else classify(fault))
        self.fault = fault


@dataclass(frozen=True, slots=True)
class _Plan:
    """An answer, decided before its first token."""

    ttft_s: float
    seconds_per_chunk: float
    content: list[Event]
    ending: list[Event]

    def due(self, elapsed_s: float, sent: int) -> int:
        """How many chunks are due so long after the first: at least one more, so that a late wake-up delays nothing."""
        if not self.seconds_per_chunk:
            return len(self.content)
        return min(len(self.content), max(sent, int(elapsed_s / self.seconds_per_chunk)) + 1)


class MockProvider:
    """The models of MOCK_MODELS, with the script's settings that the process overrides."""

    def __init__(
        self, overrides: Mapping[str, float] | None = None, clock: Clock = SYSTEM_CLOCK, calls_at_once: int = 0
    ) -> None:
        """`overrides` are options for every call ("ttft_ms", "tokens_per_second", ...); a call's own options win.

        More than `calls_at_once` calls under way are answered with status 429; 0: there is no limit.
        """
        self._clock = clock
        self._calls_at_once = calls_at_once
        self._under_way = 0
        self._rate_limited = telemetry.counter("mock_rate_limited")
        self._models = {
            name: MockModel(model.voice, with_options(model.script, overrides or {}))
            for name, model in MOCK_MODELS.items()
        }

    async def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Provider.stream."""
        model = self._models.get(request.model)
        if model is None:
            raise refused("MODEL_NOT_FOUND", f"the mock has no model {request.model!r}", field="call.model")
        script = model.script
        if options := request.call.parameters.provider_options:
            script = with_options(script, options)
        plan = self._plan(request, model, script)
        if self._calls_at_once and self._under_way >= self._calls_at_once:
            self._rate_limited.add()
            raise MockFailed(ERROR_KINDS["rate_limit"])
        self._under_way += 1
        try:
            started = Started(request.model, f"mock-{request.attempt_id}")
            if plan.ttft_s == 0 and plan.seconds_per_chunk == 0:
                yield [started, *plan.content, *plan.ending]
                return
            yield [started]
            begin = self._clock.monotonic_s() + plan.ttft_s
            sent = 0
            while sent < len(plan.content):
                wait_s = begin + sent * plan.seconds_per_chunk - self._clock.monotonic_s()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                due = plan.due(self._clock.monotonic_s() - begin, sent)
                yield plan.content[sent:due]
                sent = due
            if plan.ending:
                yield plan.ending
        finally:
            self._under_way -= 1

    async def embed(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Embedder.embed. Equal texts have equal vectors of length 1; nothing else is meant by them."""
        model = self._models.get(request.model)
        if model is None:
            raise refused("MODEL_NOT_FOUND", f"the mock has no model {request.model!r}", field="call.model")
        dimensions = request.call.dimensions or _EMBEDDING_DIMENSIONS
        vectors = tuple(mock_vector(_random(request.model, text), dimensions) for text in request.call.texts)
        usage = TokenUsage(input_tokens=sum(estimate_tokens(text) for text in request.call.texts))
        started = Started(request.model, f"mock-{request.attempt_id}", streamed=False)
        yield [started, Vectors(vectors), UsageSoFar(usage), Finished(FinishReason.STOP)]

    async def close(self) -> None:
        """Nothing to close."""

    def _plan(self, request: ProviderRequest, model: MockModel, script: MockScript) -> _Plan:
        call = request.call
        prompt = call.messages[-1].text
        repeat = request.attempt_id.partition("/")[2]
        temperature = call.parameters.temperature
        temperature = _DEFAULT_TEMPERATURE if temperature is None else temperature
        if script.error_rate:
            self._maybe_fail(request, script, prompt, repeat)
        seed = call.parameters.seed
        # Sampling at temperature 0 is greedy, and a seed makes it repeatable: then the repeat changes nothing.
        draw = "" if temperature == 0 or seed is not None else repeat
        random = _random(
            request.model, _conversation(call), repr(call.parameters.top_p), repr(temperature), repr(seed), draw
        )
        content, finish = self._answer(random, request, model, script, prompt, temperature)
        ttft_s = script.ttft_ms / 1_000 * (0.7 + 0.6 * random.random())
        seconds_per_chunk = script.chunk_size / script.tokens_per_second if script.tokens_per_second else 0.0
        if script.truncation_rate and _random("cut", prompt, repeat).random() < script.truncation_rate:
            return _Plan(ttft_s, seconds_per_chunk, content[: max(1, len(content) // 2)], [])
        ending: list[Event] = []
        if script.report_usage:
            tier = reported_tier({"service_tier": script.service_tier})
            ending.append(UsageSoFar(_usage(call, script, content), tier))
        ending.append(Finished(finish))
        if call.include_raw:
            text = "".join(event.text for event in content if isinstance(event, TextDelta))
            ending.append(RawBytes(orjson.dumps({"model": request.model, "text": text})))
        return _Plan(ttft_s, seconds_per_chunk, content, ending)

    def _maybe_fail(self, request: ProviderRequest, script: MockScript, prompt: str, repeat: str) -> None:
        random = _random("error", request.model, prompt, repeat)
        if random.random() >= script.error_rate:
            return
        kinds = script.error_kinds.split(",")
        raise MockFailed(ERROR_KINDS[kinds[int(random.random() * len(kinds))].strip()])

    def _answer(
        self,
        random: Random,
        request: ProviderRequest,
        model: MockModel,
        script: MockScript,
        prompt: str,
        temperature: float,
    ) -> tuple[list[Event], FinishReason]:
        """The content as chunks, and why it ends."""
        call = request.call
        content: list[Event] = []
        size = script.chunk_size * TOKEN_CHARACTERS
        if script.reasoning:
            content += [ReasoningDelta(piece) for piece in _pieces(script.reasoning, size)]
        if call.tools and call.tool_choice not in ("", "auto", "none"):
            tool = next((tool for tool in call.tools if tool.name == call.tool_choice), call.tools[0])
            field = f"call.tools[{call.tools.index(tool)}].parameters_json_schema"
            schema = json_schema(tool.parameters_json_schema or "{}", field)
            arguments = orjson.dumps(value_of_schema(random, schema)).decode()
            content.append(ToolCallDelta(0, f"call_{random.getrandbits(40):010x}", tool.name))
            content += [ToolCallDelta(0, arguments_json=piece) for piece in _pieces(arguments, size)]
            return content, FinishReason.TOOL_CALLS
        if script.text:
            texts = script.text.split(TEXT_SEPARATOR)
            text = texts[int(random.random() * len(texts))] if len(texts) > 1 else script.text
        elif call.response_json_schema:
            schema = json_schema(call.response_json_schema, "call.response_json_schema")
            text = orjson.dumps(value_of_schema(random, schema)).decode()
        else:
            text = mock_text(random, model.voice, prompt, temperature)
        for stop in call.parameters.stop:
            text = text.partition(stop)[0]
        limit = request.max_output_tokens * TOKEN_CHARACTERS
        finish = FinishReason.LENGTH if len(text) > limit else FinishReason.STOP
        content += [TextDelta(piece) for piece in _pieces(text[:limit], size)]
        return content, finish


def _usage(call: Call, script: MockScript, content: list[Event]) -> TokenUsage:
    output = thought = 0
    for event in content:
        if isinstance(event, TextDelta):
            output += estimate_tokens(event.text)
        elif isinstance(event, ReasoningDelta):
            thought += estimate_tokens(event.text)
        elif isinstance(event, ToolCallDelta):
            output += estimate_tokens(event.arguments_json)
    reasoning = thought if script.reasoning_tokens < 0 else script.reasoning_tokens
    input_tokens = estimate_input_tokens(call) if script.input_tokens < 0 else script.input_tokens
    return TokenUsage(
        input_tokens=input_tokens,
        cache_read_tokens=min(script.cached_tokens, input_tokens),
        output_tokens=output + reasoning if script.output_tokens < 0 else script.output_tokens,
        reasoning_tokens=reasoning,
    )


def _pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _conversation(call: Call) -> str:
    if len(call.messages) == 1:
        return call.messages[0].text
    return "\x00".join(f"{message.role}:{message.text}" for message in call.messages)


def _random(*facts: str) -> Random:
    digest = blake2b("\x1f".join(facts).encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, "big"))  # noqa: S311 (repeatable on purpose)
