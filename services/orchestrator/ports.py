"""The other services as this one needs them, and the ledger as its workers need it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from services.orchestrator.brands import BrandColumns, Names
from services.orchestrator.calls import CallOutcome, Money, PlannedCall, ResolvedAttempt, Settlement
from services.orchestrator.estimates import Comparison, Estimate, Question, Series
from services.orchestrator.experiment import BrandTarget, ScorerTarget
from services.orchestrator.ledger import (
    Claim,
    ClaimRequest,
    Pulse,
    RunPlanRecord,
    ShardKey,
    ShardState,
    StoredAnswer,
    SweptBill,
    Write,
)
from services.orchestrator.scores import Scored, ScorerDeclaration
from services.runtime.errors import DomainError


class NotSent(Exception):
    """A batch of calls did not leave this process: nothing is owed, all of it may be tried again later."""

    def __init__(self, reason: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable


class RunCredential(NamedTuple):
    """On whose behalf a run's calls are made."""

    project_id: str
    delegation_id: str


@dataclass(frozen=True, slots=True)
class KnownModels:
    """What the gateway can call: its models, and those without a key with the setting to fill in.

    `places` maps the names without a slash, its aliases and routed models, to where they are called.
    """

    names: frozenset[str]
    not_configured: dict[str, str]
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    output_limits: dict[str, int] = field(default_factory=dict)
    """Output tokens of a call that states no limit, by model."""


class Gateway(Protocol):
    """Calls models."""

    def complete_batch(
        self, credential: RunCredential, calls: Sequence[PlannedCall], timeout_s: float
    ) -> AsyncIterator[list[CallOutcome]]:
        """Dispatch 1 - 64 calls and give their outcomes as they come, in any order.

        Raises NotSent where nothing left, DomainError where the stream broke: then every call without an outcome may
        or may not have been made.
        """
        ...

    async def cancel_calls(self, credential: RunCredential, call_ids: Sequence[str]) -> None:
        """Ask for calls under way to be stopped; each still gives its outcome on its own stream."""
        ...

    async def list_models(self, token: str) -> KnownModels:
        """Everything that can be called with the caller's own token."""
        ...


class Sample(NamedTuple):
    """An answer to be scored. `references` has one text for each group of a ScoringPlan."""

    cell: int
    prompt: str
    answer: str
    references: tuple[str, ...]
    finish_reason: str
    traceparent: str = ""


class ScorerGroup(NamedTuple):
    """Scorers that share a reference. `needs_model`: they call models, at the run's expense."""

    scorers: tuple[ScorerTarget, ...]
    has_reference: bool
    needs_model: bool = False


class ScoringRun(NamedTuple):
    """The run whose answers are scored, on whose behalf, and how many calls its scorers may have under way."""

    run_id: str
    credential: RunCredential
    calls_at_once: int = 1


class Metrics(Protocol):
    """Scores answers and sums numbers up."""

    async def score_batch(
        self, run: ScoringRun, groups: Sequence[ScorerGroup], samples: Sequence[Sample]
    ) -> list[Scored]:
        """The scores of each sample, in order; one that cannot be scored has absent scores with a reason.

        Raises DomainError where the service cannot be reached.
        """
        ...

    def refused(self, error: DomainError) -> Scored:
        """The scores of a sample that the service does not take: absent, with the error as the reason."""
        ...

    async def list_scorers(self, token: str) -> list[ScorerDeclaration]:
        """The scorers that there are, with the caller's own token."""
        ...

    async def check_scorers(self, token: str, targets: Sequence[ScorerTarget]) -> None:
        """Raises InvalidField where a parameter is wrong, with the caller's own token; the path begins at "scorers"."""
        ...

    async def check_brands(self, token: str, brands: Sequence[BrandTarget]) -> None:
        """Raises InvalidField where brands make no sense, with the caller's own token; the path begins at "brands"."""
        ...

    async def detect_brands(
        self, project_id: str, brands: Sequence[BrandTarget], samples: Sequence[Sample]
    ) -> list[bytes]:
        """The encoded brands in each sample's answer, in order. Raises DomainError as `score_batch`."""
        ...

    async def summarize_brands(
        self, token: str, names: Names, run: BrandColumns, baseline: BrandColumns | None
    ) -> list[bytes]:
        """The encoded visibility of each brand, with the caller's own token."""
        ...

    async def summarize(self, token: str, series: Sequence[Series]) -> list[tuple[Estimate, ...]]:
        """The figures of each series, in order, with the caller's own token."""
        ...

    async def compare(self, token: str, question: Question) -> list[Comparison]:
        """How each group compares with the one it is compared with, itself left out, with the caller's own token."""
        ...


class Bills(Protocol):
    """What is known of money that calls have cost."""

    async def resolve_attempts(self, project_id: str, hold_ids: Sequence[str]) -> list[ResolvedAttempt]:
        """What is known of up to 256 attempts; those without a hold are given up for good. Raises DomainError."""
        ...

    async def settle(self, project_id: str, settlements: Sequence[Settlement]) -> list[Money | DomainError]:
        """Settle up to 256 attempts; the error of each that is refused. Raises DomainError."""
        ...


class CallKind(NamedTuple):
    """Calls that are alike: `output_tokens` are expected of one, at most `output_limit` are possible."""

    model: str
    input_tokens: int
    output_limit: int
    output_tokens: int
    calls: int


class Prices(Protocol):
    """Says what calls would cost."""

    async def estimate(self, token: str, kinds: Sequence[CallKind]) -> dict[CallKind, tuple[int, int] | None]:
        """What all calls of each kind are expected to cost and can cost at most, nano-USD; with the caller's token.

        None where the model has no price. Raises DomainError.
        """
        ...


class Budgets(Protocol):
    """Hard limits on what runs may cost."""

    async def limit_run(self, project_id: str, run_id: str, limit_nano_usd: int) -> None:
        """Let all calls of a run together cost so much at the most. Raises DomainError."""
        ...

    async def lift_run(self, project_id: str, run_id: str) -> None:
        """End the limit of a run, if it has one. Raises DomainError."""
        ...


class Identity(Protocol):
    """Lets a run act for the one who started it."""

    async def create_delegation(self, token: str, purpose: str) -> str:
        """The id of a delegation of the caller's rights; the same for the same purpose."""
        ...

    async def revoke_delegation(self, project_id: str, delegation_id: str) -> None:
        """End it."""
        ...


class Ledger(Protocol):
    """The queue, as workers need it; `services.orchestrator.store.SqlLedger` says what each method does."""

    async def heartbeat(self, worker_id: str, lease_ms: int) -> Pulse: ...
    async def other_workers(self, worker_id: str) -> list[str]: ...
    async def forget_workers(self, worker_ids: Iterable[str]) -> None: ...
    async def release(self, worker_id: str) -> None: ...
    async def claim(self, request: ClaimRequest) -> list[Claim]: ...
    async def grant_slots(self, shard: ShardKey, worker_id: str, grant_max: int) -> int: ...
    async def load_run(self, run_id: str) -> RunPlanRecord | None: ...
    async def load_shard(self, run_id: str, first_cell: int, cells: int) -> ShardState: ...
    async def stored_answers(self, run_id: str, cells: Sequence[int]) -> list[StoredAnswer]: ...
    async def commit(self, worker_id: str, batches: Sequence[Sequence[Write]]) -> list[list[bool]]: ...
    async def take_bills(self, rest_ms: int, life_ms: int, limit: int) -> list[SweptBill]: ...
    async def purge_some(self, rows_max: int) -> bool: ...
