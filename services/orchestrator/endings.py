"""How the end of a call is written down: outcomes as Writes for the ledger."""

from __future__ import annotations

from services.orchestrator.calls import (
    NO_MONEY,
    NO_USAGE,
    Answer,
    AttemptState,
    CallId,
    Failure,
    Money,
    ResolvedAttempt,
    Usage,
)
from services.orchestrator.ledger import CellAgain, CellResult, OpenBill
from services.orchestrator.records import COUNTED_OUTCOMES
from services.orchestrator.states import CellStatus

_LOST_REASONS = {CellStatus.UNKNOWN: "DEPENDENCY_UNAVAILABLE", CellStatus.CANCELLED: "CANCELLED"}
"""The reason of a result whose call was lost: nobody is left to give one."""


def answered(call: CallId, model: int, earlier: int, answer: Answer) -> CellResult:
    """The result of a cell that has an answer. `earlier` counts the attempts before."""
    return CellResult(
        run_id=call.run_id,
        cell=call.cell,
        attempt=call.attempt,
        model=model,
        status=CellStatus.DONE,
        attempts=earlier + 1,
        finish_reason=answer.finish_reason,
        provider_model=answer.provider_model,
        usage=answer.usage,
        cost=answer.cost or NO_MONEY,
        timing=answer.timing,
        settled=answer.cost is not None,
        answer=answer.body,
    )


def failed(call: CallId, model: int, earlier: int, status: CellStatus, failure: Failure) -> CellResult:
    """The result of a cell whose last call failed."""
    return CellResult(
        run_id=call.run_id,
        cell=call.cell,
        attempt=call.attempt,
        model=model,
        status=status,
        attempts=earlier + failure.dispatched,
        usage=failure.usage,
        cost=failure.cost or NO_MONEY,
        error_reason=failure.reason,
        settled=failure.cost is not None or not failure.dispatched,
        error=failure.encoded,
    )


def lost(call: CallId, model: int, earlier: int, status: CellStatus, attempt: ResolvedAttempt) -> CellResult:
    """The result of a cell whose call may have been paid for and gave nothing."""
    known = attempt.state is not AttemptState.HELD
    return CellResult(
        run_id=call.run_id,
        cell=call.cell,
        attempt=call.attempt,
        model=model,
        status=status,
        attempts=earlier + 1,
        usage=attempt.usage if known else NO_USAGE,
        cost=(attempt.cost or NO_MONEY) if known else NO_MONEY,
        error_reason=_LOST_REASONS[status],
        settled=known,
    )


def again(
    call: CallId,
    outcome: str,
    reason: str,
    *,
    not_before_us: int | None,
    usage: Usage = NO_USAGE,
    cost: Money | None = None,
) -> CellAgain:
    """The record of a call that gave its cell no result. `cost` None: it is not confirmed, where any is due."""
    return CellAgain(
        run_id=call.run_id,
        cell=call.cell,
        attempt=call.attempt,
        outcome=outcome,
        reason=reason,
        not_before_us=not_before_us,
        usage=usage,
        cost=cost or NO_MONEY,
        settled=cost is not None or outcome not in COUNTED_OUTCOMES,
    )


def open_bill(call: CellResult | CellAgain, created_us: int) -> OpenBill:
    """What is to be settled or read of a call whose cost is not confirmed."""
    if isinstance(call, CellResult):
        status, provider_model = call.status, call.provider_model
    else:
        status, provider_model = CellStatus.UNKNOWN if call.outcome == "unknown" else CellStatus.FAILED, ""
    return OpenBill(call.run_id, call.cell, call.attempt, status, call.usage, provider_model, created_us)
