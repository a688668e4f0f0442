"""What TinyFish says about a run: the same object from /run, from /runs/{id} and in the last event of /run-sse.

Reference: https://docs.mino.ai/key-concepts/runs. COMPLETED means that the browser ran to its end, not that the goal
was reached: that is in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.gateway.chunks import AutomationResult, Event, Finished, FinishReason, UsageSoFar
from services.gateway.failures import CallFailed, Failure
from services.gateway.usage import TokenUsage

FINAL_STATUSES = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_FAILED_WORDS = frozenset({"failure", "failed", "error", "not_reached"})


@dataclass(frozen=True, slots=True)
class RunReport:
    """One report of a run. `steps` is None where none are counted."""

    run_id: str
    status: str
    result: Any
    error: str
    steps: int | None


def run_report(body: Any) -> RunReport:
    """The report in a body, whose names come with underscores or in camel case. Raises CallFailed for anything else."""
    if not isinstance(body, dict):
        raise CallFailed(Failure("PROVIDER_ERROR", "the provider's answer is not a run", dispatched=True))
    error = body.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    steps = body.get("num_of_steps", body.get("numOfSteps"))
    run_id = body.get("run_id") or body.get("runId")
    return RunReport(
        run_id=run_id if isinstance(run_id, str) else "",
        status=str(body.get("status") or "").upper(),
        result=body.get("result", body.get("resultJson")),
        error=str(message or ""),
        steps=steps if isinstance(steps, int) and steps >= 0 else None,
    )


def ending_of(report: RunReport) -> list[Event] | Failure:
    """What the end of a run means: its result, or how it failed."""
    if report.status == "COMPLETED":
        return [AutomationResult(_goal_reached(report.result)), Finished(FinishReason.STOP)]
    reason = "CANCELLED" if report.status == "CANCELLED" else "PROVIDER_ERROR"
    message = report.error or f"the automation ended as {report.status.lower()}"
    return Failure(reason, message[:2_000], dispatched=True, provider_request_id=report.run_id)


def usage_of(report: RunReport, steps_seen: int) -> UsageSoFar:
    """The steps to be paid. Where none are counted, those that were seen are the estimate, and at least one."""
    if report.steps is not None:
        return UsageSoFar(TokenUsage(steps=report.steps))
    return UsageSoFar(TokenUsage(steps=max(1, steps_seen), measured=False))


def _goal_reached(result: Any) -> bool:
    if not isinstance(result, dict):
        return bool(result)
    said_no = result.get("success") is False or bool(result.get("error"))
    return bool(result) and not said_no and str(result.get("status") or "").lower() not in _FAILED_WORDS
