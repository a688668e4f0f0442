"""What one attempt of a call goes through, and how a call ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from services.gateway.calls import Owner, Part, ProviderRequest
from services.gateway.catalogue import Deployment
from services.gateway.chunks import FinishReason
from services.gateway.collector import Collector
from services.gateway.failures import Failure
from services.gateway.timing import Stopwatch, Timing
from services.gateway.usage import TokenUsage


class Cause(Enum):
    """Why an attempt was made."""

    FIRST = "first"
    RETRY = "retry"
    """Once more, after a failure that may pass; at another deployment of the model where there is one."""
    REROUTE = "reroute"
    """At another deployment of the model, because one before had no room or did not take our key."""
    FALLBACK = "fallback"
    """At another model, because the one before could not answer."""
    HEDGE = "hedge"
    """Beside an attempt that took long to begin its answer."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an attempt costs: nano-USD; a model without a price counts as unpriced, never as free."""

    cost_nano_usd: int
    unpriced_calls: int = 0
    price_version: str = ""


@dataclass(slots=True)
class Attempt:
    """One try at one provider, while it is under way. Layers of the pipeline read it and write their results into it.

    Attributes:
        deadline: `time.monotonic` seconds at which the call has to be over.
        cause: why it is made.
        waits: whether it waits for room within its limits; not where another deployment may have room at once.
        duration_us: from the request's leaving to the attempt's end, its settlement not included.
        reserved: whether a hold was asked for: then its id is used up.
        beaten: whether another attempt of the call, beside it, was the first to answer.
        dispatched: whether anything may have reached the provider; decides between settling and releasing.
        heard: whether the provider has answered anything.
        failure: how it failed; None while it runs and where it worked.
        usage: what it took, for the bill; None where nothing is owed.
        cost: what the cost service made of the usage; None while it has not confirmed it.
    """

    attempt_id: str
    deployment: Deployment
    request: ProviderRequest
    owner: Owner
    nonce: str
    deadline: float
    stopwatch: Stopwatch
    cause: Cause = Cause.FIRST
    waits: bool = True
    collector: Collector = field(default_factory=Collector)
    reserved: bool = False
    beaten: bool = False
    dispatched: bool = False
    heard: bool = False
    duration_us: int = 0
    failure: Failure | None = None
    usage: TokenUsage | None = None
    cost: Cost | None = None

    @property
    def provider(self) -> str:
        """The name of the provider that it goes to."""
        return self.deployment.provider

    def record(self) -> AttemptRecord:
        """The attempt as it ended."""
        return AttemptRecord(
            attempt_id=self.attempt_id,
            provider=self.provider,
            deployment=self.deployment.name,
            cause=self.cause,
            provider_model=self.collector.provider_model or self.request.model,
            started_at_us=self.stopwatch.started_at_us,
            duration_us=self.duration_us,
            failure=self.failure,
            usage=self.usage,
            cost=self.cost,
            provider_request_id=self.collector.provider_request_id,
        )


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt that is over. `started_at_us` is UTC microseconds, 0 where the request never left."""

    attempt_id: str
    provider: str
    deployment: str
    cause: Cause
    provider_model: str
    started_at_us: int
    duration_us: int
    failure: Failure | None
    usage: TokenUsage | None
    cost: Cost | None
    provider_request_id: str


@dataclass(frozen=True, slots=True)
class Reuse:
    """Marks an answer that was made, and paid, for another call of the project.

    Attributes:
        source: "cache": it had been kept; "flight": the other call was under way.
        attempt_id: the attempt that was paid.
        answered_at_us: when that attempt's answer was complete, UTC microseconds.
        latency_us: what this call took, from its arrival to the end of the answer.
    """

    source: Literal["cache", "flight"]
    attempt_id: str
    answered_at_us: int
    latency_us: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered, and what it took.

    With `reuse` usage and timing are of the call that the answer was made for, cost and attempts of this one: none.
    """

    call_id: str
    model: str
    provider_model: str
    parts: tuple[Part, ...]
    finish_reason: FinishReason
    usage: TokenUsage
    timing: Timing
    cost: Cost | None
    attempts: tuple[AttemptRecord, ...]
    raw: bytes = b""
    reuse: Reuse | None = None


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call that gave no answer."""

    call_id: str
    failure: Failure
    attempts: tuple[AttemptRecord, ...] = ()


CallOutcome = Completion | FailedCall


def total_cost(attempts: Sequence[AttemptRecord]) -> Cost | None:
    """What attempts cost together; None while the cost of one is not confirmed."""
    costs = [attempt.cost for attempt in attempts if attempt.cost is not None]
    if not costs or len(costs) < len(attempts):
        return None
    return Cost(
        cost_nano_usd=sum(cost.cost_nano_usd for cost in costs),
        unpriced_calls=sum(cost.unpriced_calls for cost in costs),
        price_version=costs[-1].price_version,
    )
