"""What the ledger keeps, as plain values: experiments, runs, results, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from services.orchestrator.calls import NO_MONEY, NO_USAGE, Money, Timing, Usage
from services.orchestrator.limits import RunLimits
from services.orchestrator.states import CellStatus, RunStatus

if TYPE_CHECKING:
    from services.orchestrator.pace import Pace


@dataclass(frozen=True, slots=True)
class ExperimentRecord:
    """An experiment. Times are microseconds UTC."""

    experiment_id: str
    project_id: str
    name: str
    description: str
    spec_hash: str
    cells: int
    created_us: int
    updated_us: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts and sums of a run. Tokens and money include every attempt, not only those that gave a result."""

    cells_total: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    cancelled: int = 0
    scored: int = 0
    attempts_failed: int = 0
    usage: Usage = NO_USAGE
    cost: Money = NO_MONEY
    latency_sum_us: int = 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run. `started_us` and `ended_us` are 0 until they happen; `limits` are those in force.

    `traceparent` is the trace context of the call that started it; empty where that was not recorded.
    """

    run_id: str
    project_id: str
    experiment_id: str
    experiment_name: str
    status: RunStatus
    spec_hash: str
    limits: RunLimits
    user_id: str
    key_id: str
    delegation_id: str
    created_us: int
    started_us: int = 0
    ended_us: int = 0
    failure: str = ""
    last_sequence: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    traceparent: str = ""


class ResultRecord(NamedTuple):
    """The result of a cell, without bodies. `usage` and `cost` include the cell's earlier attempts.

    `attempts` counts those that may have reached a provider, `attempt` is the dispatch that gave the result.
    """

    run_id: str
    cell: int
    sequence: int
    status: CellStatus
    attempt: int
    attempts: int
    finish_reason: str
    provider_model: str
    usage: Usage
    cost: Money
    timing: Timing
    error_reason: str
    scored: bool
    created_us: int


class AnswerSample(NamedTuple):
    """How long an answer is and how long it took."""

    cell: int
    output_tokens: int
    latency_us: int


class ResultBodies(NamedTuple):
    """The encoded bodies of a result; empty where there is none. Only adapters read them."""

    answer: bytes = b""
    error: bytes = b""
    scores: bytes = b""
    brands: bytes = b""


class EventKind(StrEnum):
    """What an event tells."""

    STARTED = "started"
    PROGRESS = "progress"
    RESULT = "result"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXHAUSTED = "exhausted"
    PAUSED = "paused"
    RESUMED = "resumed"
    RETRIED = "retried"


LAST_EVENTS = frozenset({EventKind.COMPLETED, EventKind.FAILED, EventKind.CANCELLED, EventKind.EXHAUSTED})
"""Events after which no further one comes, unless the run is retried."""


class ResultEvent(NamedTuple):
    """A cell has its result."""

    cell: int
    status: CellStatus
    cost: Money
    latency_us: int
    error_reason: str


class RunEvent(NamedTuple):
    """A durable event of a run. `result` is set for RESULT, `statistics` for all others.

    `final`: the run had ended with it when it was read, and no later event was there.
    """

    sequence: int
    kind: EventKind
    time_us: int
    statistics: Statistics | None = None
    result: ResultEvent | None = None
    failure: str = ""
    final: bool = False
    pace: Pace | None = None
    """Of the latest event with statistics, as it was read."""


class AttemptRecord(NamedTuple):
    """A dispatch that did not give the cell's result.

    `outcome` is "failed", "unknown", "refused" (the gateway did not dispatch it), "unsent" (it never got there) or
    "superseded" (the cell had its result already). The first three with "_earlier" behind them: the cell has been
    retried since by a person, and has its attempts anew.
    """

    cell: int
    attempt: int
    outcome: str
    reason: str
    usage: Usage = NO_USAGE
    cost: Money = NO_MONEY


COUNTED_OUTCOMES = frozenset({"failed", "unknown"})
"""Outcomes of attempts that were made, and may have cost something, before the cell went on."""

EARLIER = "_earlier"
"""Behind the outcome of an attempt that was made before its cell was retried by a person."""


def was_made(outcome: str) -> bool:
    """Whether an attempt with this outcome was made, and may have cost something."""
    return outcome.removesuffix(EARLIER) in COUNTED_OUTCOMES
