"""What becomes of a cell when one of its calls has ended, or is lost: pure decisions, no clock, no storage.

A cell is dispatched again when nothing had left (not counted as an attempt), or when its call failed in a way that may
pass and it has attempts left. A call whose outcome is lost is asked about at the cost service before anything else
happens to its cell: nothing is ever dispatched blindly.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from services.orchestrator.calls import AttemptState, Failure, ResolvedAttempt
from services.orchestrator.states import CellStatus
from services.runtime.backoff import Backoff

OUT_OF_MONEY = "BUDGET_EXCEEDED"
"""The failure of a call for which a budget has no room."""

HOPELESS_REASONS = frozenset(
    {
        OUT_OF_MONEY,
        "UNPRICED",
        "MODEL_NOT_FOUND",
        "PROVIDER_NOT_CONFIGURED",
        "PROVIDER_AUTH",
        "PROVIDER_BILLING",
        "PROVIDER_FORBIDDEN",
        "PROVIDER_QUOTA",
        "INVALID_REQUEST",
        "INVALID_FIELD",
        "CONTEXT_LENGTH_EXCEEDED",
        "CONTENT_POLICY",
        "MESSAGE_TOO_LARGE",
        "PERMISSION_DENIED",
        "DELEGATION_ENDED",
    }
)
"""Failures that no second attempt cures, whatever else the error says."""

RESOLVE_REASONS = frozenset({"CALL_ALREADY_DISPATCHED", "HOLD_TOMBSTONED", "HOLD_NONCE_MISMATCH", "HOLD_RESOLVED"})
"""Failures that say that this id has a history: the cost service knows which."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a cell is tried again.

    `attempts_max` counts attempts that may have reached a provider. `refusals_max` bounds dispatches of one cell that
    nobody took (a rate limit, an open breaker, a gateway that is down), which do not count as attempts.
    """

    attempts_max: int
    refusals_max: int
    retry_unknown: bool
    backoff: Backoff


class Finish(NamedTuple):
    """The cell has its result."""

    status: CellStatus


class Again(NamedTuple):
    """The cell is dispatched again, under a new call id, after `delay_ms`. `outcome`: what its call came to."""

    delay_ms: int
    outcome: str


class Resolve(NamedTuple):
    """Nobody on this side knows what came of the call: ask the cost service."""


class AskAgain(NamedTuple):
    """The cost service does not know yet."""


class Drop(NamedTuple):
    """Nothing left and nothing will: the run is being cancelled, and the cell stays without a result."""


Decision: TypeAlias = Finish | Again | Resolve | Drop
Resolution: TypeAlias = Finish | Again | AskAgain | Drop


class CellHistory(NamedTuple):
    """What a cell's earlier dispatches came to.

    `counted` may have reached a provider, `refused` were turned away by the gateway, `unsent` never got to it. `last`
    is the highest number that is known to be used: a dispatch that was never noted leaves a gap below it. `earlier`
    may have reached a provider before the cell was retried by a person, and do not use up its attempts.
    """

    counted: int = 0
    refused: int = 0
    unsent: int = 0
    last: int = 0
    earlier: int = 0

    @property
    def made(self) -> int:
        """All attempts that may have reached a provider."""
        return self.counted + self.earlier

    @property
    def next_attempt(self) -> int:
        """The number of the next dispatch, from 1; one that was used is never used again."""
        return max(self.last, self.counted + self.refused + self.unsent) + 1

    def plus(self, outcome: str, attempt: int) -> CellHistory:
        """The history with one more dispatch; outcomes as in records.AttemptRecord."""
        history = self._replace(last=max(self.last, attempt))
        if outcome == "refused":
            return history._replace(refused=self.refused + 1)
        if outcome == "unsent":
            return history._replace(unsent=self.unsent + 1)
        return history._replace(counted=self.counted + 1)


def decide_failure(
    failure: Failure, history: CellHistory, policy: RetryPolicy, rng: random.Random, *, cancelling: bool
) -> Decision:
    """What follows from a failed call; `history` does not include it."""
    if failure.reason in RESOLVE_REASONS:
        return Resolve()
    if cancelling:
        return _failure_while_cancelling(failure)
    if failure.reason in HOPELESS_REASONS or not failure.retryable:
        return Finish(CellStatus.FAILED)
    if failure.dispatched:
        if history.counted + 1 >= policy.attempts_max:
            return Finish(CellStatus.FAILED)
        delay_ms = policy.backoff.delay_ms(history.counted + 1, rng, at_least_ms=failure.retry_after_ms)
        return Again(delay_ms, "failed")
    return _refused(history, policy, rng, failure.retry_after_ms)


def _failure_while_cancelling(failure: Failure) -> Decision:
    if not failure.dispatched:
        return Drop()
    return Finish(CellStatus.CANCELLED if failure.reason == "CANCELLED" else CellStatus.FAILED)


def _refused(history: CellHistory, policy: RetryPolicy, rng: random.Random, at_least_ms: int) -> Finish | Again:
    if history.refused + 1 >= policy.refusals_max:
        return Finish(CellStatus.FAILED)
    return Again(policy.backoff.delay_ms(history.refused + 1, rng, at_least_ms=at_least_ms), "refused")


def decide_resolution(
    attempt: ResolvedAttempt,
    history: CellHistory,
    policy: RetryPolicy,
    rng: random.Random,
    *,
    waited_ms: int,
    unknown_after_ms: int,
    cancelling: bool,
) -> Resolution:
    """What follows from the cost service's word on a lost call; `waited_ms` is how long its outcome has been missing.

    TOMBSTONED and RELEASED: it never left, and never will under this id. SETTLED: it was paid for, its answer is lost.
    EXPIRED, or HELD for longer than `unknown_after_ms`: it may have been paid for.
    """
    if attempt.state in (AttemptState.TOMBSTONED, AttemptState.RELEASED):
        return Drop() if cancelling else Again(policy.backoff.delay_ms(1, rng), "unsent")
    if attempt.state is AttemptState.HELD and waited_ms < unknown_after_ms:
        return AskAgain()
    if cancelling:
        return Finish(CellStatus.CANCELLED if attempt.state is AttemptState.SETTLED else CellStatus.UNKNOWN)
    if policy.retry_unknown and history.counted + 1 < policy.attempts_max:
        return Again(policy.backoff.delay_ms(history.counted + 1, rng), "unknown")
    return Finish(CellStatus.UNKNOWN)
