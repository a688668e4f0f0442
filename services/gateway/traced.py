"""The pipeline with its calls, attempts and money in traces; used only where traces are on.

A call is a span below the trace context that its caller gave it, else below the RPC that brought it. Below the call are
its holds, its attempts by the names that OpenTelemetry has for generative models, and its settlements and releases.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from services.gateway.admission import ActiveCall
from services.gateway.attempts import Attempt, CallOutcome, Completion, Cost
from services.gateway.calls import Call, Owner, Part, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from services.gateway.chunks import Emit
from services.gateway.cost_port import CostPort, Reservation, Settlement
from services.gateway.dispatching import Dispatcher
from services.gateway.pipeline import Pipeline
from services.gateway.providers.port import Provider
from services.runtime.clock import Clock
from services.runtime.tracing import current_traceparent, is_recorded, under

if TYPE_CHECKING:
    from services.runtime.spans import Attribute, Span, Tracer

TEXT_CHARACTERS_MAX = 1_000
"""Of each text in a span, where texts are switched on; further messages than fit are cut by the exporter's limit."""


class TracedPipeline(Pipeline):
    """Runs calls under spans."""

    def __init__(self, *, tracer: Tracer, **layers: Any) -> None:
        """`layers` are those of a Pipeline."""
        super().__init__(**layers)
        self._tracer = tracer

    async def run(self, call: Call, owner: Owner, emit: Emit | None = None) -> CallOutcome:
        """See Pipeline.run."""
        parent = call.traceparent or current_traceparent()
        if not is_recorded(parent):
            return await super().run(call, owner, emit)
        attributes: dict[str, Attribute] = {"llmlab.call.id": call.call_id, "gen_ai.request.model": call.model}
        if call.run_id:
            attributes["llmlab.run.id"] = call.run_id
        span = self._tracer.begin("call", parent, kind="server", attributes=attributes)
        with under(span):
            outcome = await super().run(call, owner, emit)
            if not isinstance(outcome, Completion):
                span.fail(outcome.failure.reason)
            elif outcome.reuse is not None:
                span.set({"llmlab.reuse": outcome.reuse.source})
            return outcome


class TracedDispatcher(Dispatcher):
    """Sends attempts under spans."""

    def __init__(self, clock: Clock, tracer: Tracer, operation: str) -> None:
        """`operation` is the name of what is asked of models: "chat", "embeddings" ..."""
        super().__init__(clock)
        self._tracer = tracer
        self._operation = operation

    async def send(self, attempt: Attempt, provider: Provider, active: ActiveCall, emit: Emit | None) -> None:
        """See Dispatcher.send."""
        above = current_traceparent()
        if not above:
            await super().send(attempt, provider, active, emit)
            return
        name = f"{self._operation} {attempt.request.model}"
        attributes = _asked(attempt, self._operation, streamed=emit is not None)
        span = self._tracer.begin(name, above, kind="client", attributes=attributes)
        with under(span):
            try:
                await super().send(attempt, provider, active, emit)
            finally:
                span.set(_answered(attempt))
                if self._tracer.texts:
                    span.set(_texts(attempt))
                if attempt.failure is not None:
                    span.fail(attempt.failure.reason)


class TracedCost:
    """A CostPort whose holds, settlements and releases are spans, which the items of its batches carry along."""

    def __init__(self, cost: CostPort, tracer: Tracer) -> None:
        self._cost = cost
        self._tracer = tracer

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        """See CostPort.hold."""
        if not current_traceparent():
            await self._cost.hold(owner, reservation)
            return
        with self._span("hold", reservation.attempt_id):
            await self._cost.hold(owner, reservation)

    async def settle(self, owner: Owner, settlement: Settlement) -> Cost:
        """See CostPort.settle."""
        if not current_traceparent():
            return await self._cost.settle(owner, settlement)
        with self._span("settle", settlement.attempt_id) as span:
            cost = await self._cost.settle(owner, settlement)
            span.set({"llmlab.cost.nano_usd": cost.cost_nano_usd, "llmlab.cost.unpriced": bool(cost.unpriced_calls)})
            return cost

    async def release(self, owner: Owner, attempt_id: str) -> None:
        """See CostPort.release."""
        if not current_traceparent():
            await self._cost.release(owner, attempt_id)
            return
        with self._span("release", attempt_id):
            await self._cost.release(owner, attempt_id)

    async def record(self, owner: Owner, reservation: Reservation, settlement: Settlement) -> None:
        """See CostPort.record."""
        if not current_traceparent():
            await self._cost.record(owner, reservation, settlement)
            return
        with self._span("record", settlement.attempt_id):
            await self._cost.record(owner, reservation, settlement)

    async def has_hard_budget(self, owner: Owner) -> bool:
        """See CostPort.has_hard_budget."""
        return await self._cost.has_hard_budget(owner)

    @contextmanager
    def _span(self, name: str, attempt_id: str) -> Iterator[Span]:
        attributes = {"llmlab.attempt.id": attempt_id}
        span = self._tracer.begin(name, current_traceparent(), kind="client", attributes=attributes)
        with under(span):
            yield span


def _asked(attempt: Attempt, operation: str, *, streamed: bool) -> dict[str, Attribute]:
    parameters = attempt.request.call.parameters
    found: dict[str, Attribute | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": attempt.provider,
        "gen_ai.request.model": attempt.request.model,
        "gen_ai.request.stream": streamed,
        "gen_ai.request.max_tokens": attempt.request.max_output_tokens,
        "gen_ai.request.temperature": parameters.temperature,
        "gen_ai.request.top_p": parameters.top_p,
        "gen_ai.request.seed": parameters.seed,
        "llmlab.attempt.id": attempt.attempt_id,
        "llmlab.attempt.cause": attempt.cause.value,
        "llmlab.deployment": attempt.deployment.name,
    }
    return {name: value for name, value in found.items() if value is not None}


def _answered(attempt: Attempt) -> dict[str, Attribute]:
    collector, usage = attempt.collector, attempt.usage
    found: dict[str, Attribute] = {}
    if collector.provider_model:
        found["gen_ai.response.model"] = collector.provider_model
    if collector.provider_request_id:
        found["gen_ai.response.id"] = collector.provider_request_id
    if collector.finish_reason is not None:
        found["gen_ai.response.finish_reasons"] = [collector.finish_reason.value]
    if attempt.stopwatch.ttft_any_us is not None:
        found["gen_ai.response.time_to_first_chunk"] = attempt.stopwatch.ttft_any_us / 1_000_000
    if usage is not None:
        found |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
            "gen_ai.usage.cache_write.input_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            "llmlab.usage.measured": usage.measured,
        }
    return found


def _texts(attempt: Attempt) -> dict[str, Attribute]:
    """What was asked and answered, by the conventions' schema of messages."""
    asked = [_message(message.role, message.parts) for message in attempt.request.call.messages]
    answered = [_message("assistant", attempt.collector.parts())]
    return {
        "gen_ai.input.messages": json.dumps(asked, ensure_ascii=False),
        "gen_ai.output.messages": json.dumps(answered, ensure_ascii=False),
    }


def _message(role: str, parts: Iterable[Part]) -> dict[str, Any]:
    return {"role": role, "parts": [_part(part) for part in parts]}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "content": text[:TEXT_CHARACTERS_MAX]}
        case ReasoningPart(text):
            return {"type": "reasoning", "content": text[:TEXT_CHARACTERS_MAX]}
        case ToolCallPart(id=call_id, name=name, arguments_json=arguments):
            return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments[:TEXT_CHARACTERS_MAX]}
        case ToolResultPart(tool_call_id=call_id, text=text):
            return {"type": "tool_call_response", "id": call_id, "response": text[:TEXT_CHARACTERS_MAX]}
    return {"type": "image"}
