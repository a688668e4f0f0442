"""The words in which this service speaks with the gateway and the cost service, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from services.orchestrator.experiment import Role
from services.orchestrator.values import Values

RenderedMessages: TypeAlias = tuple[tuple[Role, str], ...]
"""The messages of one call, templates filled in."""


class Usage(NamedTuple):
    """Tokens with the meaning of `llmlab.api.common.v1.TokenUsage`: totals include their parts.

    `estimated` is 1 where the gateway estimated at least one of the figures, 0 where the provider measured them all.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    steps: int = 0
    estimated: int = 0


class Money(NamedTuple):
    """What calls cost: the priced ones in nano-USD, and how many had no price."""

    nano_usd: int = 0
    unpriced_calls: int = 0


NO_USAGE = Usage()
NO_MONEY = Money()


class Timing(NamedTuple):
    """Times of one answer, microseconds of a monotonic clock; None where there was no such moment."""

    latency_us: int = 0
    ttft_any_us: int | None = None
    ttft_output_us: int | None = None
    queue_us: int = 0
    chunks: int = 0
    streamed: bool = False


NO_TIMING = Timing()


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CallPlan:
    """What all calls of one model at one parameter point of a run have in common.

    Equal only to itself, so that an adapter can keep its own prepared form of it.
    """

    run_id: str
    model: str
    parameters: Values
    provider_options: Values
    timeout_ms: int
    tags: Mapping[str, str] = field(default_factory=dict)
    ignore_circuit_breaker: bool = False


class PlannedCall(NamedTuple):
    """One call to be dispatched."""

    call_id: str
    nonce: str
    plan: CallPlan
    messages: RenderedMessages
    traceparent: str = ""


class Answer(NamedTuple):
    """What a model answered. `cost` is None while the cost service has not confirmed it.

    `text` is the visible text; `body` is the encoded answer with all its parts, which only adapters read.
    """

    text: str
    body: bytes
    finish_reason: str
    provider_model: str
    usage: Usage
    cost: Money | None
    timing: Timing


class Failure(NamedTuple):
    """How a call failed. `dispatched` False: nothing left for the provider, nothing is owed.

    `cost` is None where the call was dispatched and its cost is not confirmed. `encoded` is the whole error, which only
    adapters read.
    """

    reason: str
    message: str
    retryable: bool
    dispatched: bool
    retry_after_ms: int = 0
    usage: Usage = NO_USAGE
    cost: Money | None = NO_MONEY
    encoded: bytes = b""


class CallOutcome(NamedTuple):
    """How one call of a batch ended."""

    call_id: str
    ending: Answer | Failure


class AttemptState(StrEnum):
    """What the cost service knows of an attempt."""

    TOMBSTONED = "tombstoned"
    """It never had a hold, and can never get one any more."""
    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    """It never left."""
    EXPIRED = "expired"


class ResolvedAttempt(NamedTuple):
    """What the cost service says of one attempt. `cost` is what was settled; None where nothing is."""

    attempt_id: str
    state: AttemptState
    usage: Usage
    cost: Money | None


class Settlement(NamedTuple):
    """A known outcome whose hold is to be settled from the ledger."""

    attempt_id: str
    usage: Usage
    provider_model: str
    occurred_at_us: int
    succeeded: bool


class CallId(NamedTuple):
    """The chain from the ledger to the bill: `run/cell/attempt`, and `/1` behind it for the hold and the usage event.

    The attempt counts dispatches from 1. Every dispatch has an id of its own: one given up is never used again.
    """

    run_id: str
    cell: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.run_id}/{self.cell}/{self.attempt}"

    @property
    def hold_id(self) -> str:
        """The id of the call's hold and usage event: a call of a batch is not tried again inside the gateway."""
        return f"{self.run_id}/{self.cell}/{self.attempt}/1"

    @classmethod
    def parse(cls, text: str) -> CallId:
        """The inverse of `str`. Raises ValueError for anything else."""
        run_id, cell, attempt = text.split("/")
        return cls(run_id, int(cell), int(attempt))


def add_usage(left: Usage, right: Usage) -> Usage:
    """Both together; estimated where one of them is."""
    sums = Usage._make(a + b for a, b in zip(left, right, strict=True))
    return sums._replace(estimated=max(left.estimated, right.estimated))


def add_money(left: Money, right: Money) -> Money:
    """Both together."""
    return Money(left.nano_usd + right.nano_usd, left.unpriced_calls + right.unpriced_calls)
