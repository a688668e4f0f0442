"""Rows of the ledger as records, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table

from services.orchestrator.calls import Money, Timing, Usage
from services.orchestrator.ledger import OpenBill
from services.orchestrator.limits import RunLimits
from services.orchestrator.records import ExperimentRecord, ResultRecord, RunRecord, Statistics
from services.orchestrator.states import CellStatus, RunStatus

USAGE_COLUMNS = tuple("usage_estimated" if name == "estimated" else name for name in Usage._fields)
MONEY_COLUMNS = ("cost_nano_usd", "unpriced_calls")
BILL_COLUMNS = USAGE_COLUMNS + MONEY_COLUMNS
_TOKENS = len(USAGE_COLUMNS)


def bill_values(usage: Usage, cost: Money) -> dict[str, int]:
    """The columns of tokens and money."""
    return dict(zip(BILL_COLUMNS, (*usage, *cost), strict=True))


def bill_of(values: tuple[int, ...]) -> tuple[Usage, Money]:
    """Tokens and money from the columns in the order of BILL_COLUMNS."""
    return Usage(*values[:_TOKENS]), Money(*values[_TOKENS:])


def bill_columns(table: Table) -> list[Any]:
    """The columns of tokens and money of a table, in order."""
    return [table.c[name] for name in BILL_COLUMNS]


def usage_of(row: Mapping[Any, Any]) -> Usage:
    """Tokens from a row's mapping."""
    return Usage(*(row[name] for name in USAGE_COLUMNS))


def money_of(row: Mapping[Any, Any]) -> Money:
    """Money from a row's mapping."""
    return Money(row["cost_nano_usd"], row["unpriced_calls"])


def bill_row(bill: OpenBill) -> dict[str, Any]:
    """A row of `open_bills`, asked about from the moment it is written."""
    return {
        "run_id": bill.run_id,
        "cell": bill.cell,
        "attempt": bill.attempt,
        "status": bill.status.value,
        **dict(zip(USAGE_COLUMNS, bill.usage, strict=True)),
        "provider_model": bill.provider_model,
        "created_us": bill.created_us,
        "ask_at_us": bill.created_us,
    }


def open_bill_of(row: Mapping[Any, Any]) -> OpenBill:
    """A row of `open_bills`."""
    return OpenBill(
        run_id=row["run_id"],
        cell=row["cell"],
        attempt=row["attempt"],
        status=CellStatus(row["status"]),
        usage=usage_of(row),
        provider_model=row["provider_model"],
        created_us=row["created_us"],
    )


def experiment_of(values: Mapping[Any, Any]) -> ExperimentRecord:
    """A row of `experiments`."""
    return ExperimentRecord(**{name: values[name] for name in ExperimentRecord.__slots__})


def statistics_of(values: Mapping[Any, Any]) -> Statistics:
    """The counters of a `run_progress` row with the run's `cells`."""
    return Statistics(
        cells_total=values["cells"],
        done=values["done"],
        failed=values["failed"],
        unknown=values["unknown"],
        cancelled=values["cancelled"],
        scored=values["scored"],
        attempts_failed=values["attempts_failed"],
        usage=usage_of(values),
        cost=money_of(values),
        latency_sum_us=values["latency_sum_us"],
    )


def run_of(values: Mapping[Any, Any]) -> RunRecord:
    """A row of `runs` joined with `run_progress`."""
    return RunRecord(
        run_id=values["run_id"],
        project_id=values["project_id"],
        experiment_id=values["experiment_id"],
        experiment_name=values["experiment_name"],
        status=RunStatus(values["status"]),
        spec_hash=values["spec_hash"],
        limits=RunLimits(
            concurrency=values["concurrency"],
            attempts_max=values["attempts_max"],
            timeout_ms=values["timeout_ms"],
            requests_per_minute=values["requests_per_minute"],
            retry_unknown=values["retry_unknown"],
            max_cost_nano_usd=values["max_cost_nano_usd"],
            ignore_circuit_breaker=values["ignore_circuit_breaker"],
            priority=values["priority"],
            fixed_concurrency=values["fixed_concurrency"],
        ),
        user_id=values["user_id"],
        key_id=values["key_id"],
        delegation_id=values["delegation_id"],
        created_us=values["created_us"],
        started_us=values["started_us"],
        ended_us=values["ended_us"],
        failure=values["failure"],
        last_sequence=values["last_sequence"],
        statistics=statistics_of(values),
        traceparent=values["traceparent"],
    )


def result_of(values: Mapping[Any, Any]) -> ResultRecord:
    """A row of `results`."""
    return ResultRecord(
        run_id=values["run_id"],
        cell=values["cell"],
        sequence=values["sequence"],
        status=CellStatus(values["status"]),
        attempt=values["attempt"],
        attempts=values["attempts"],
        finish_reason=values["finish_reason"],
        provider_model=values["provider_model"],
        usage=usage_of(values),
        cost=money_of(values),
        timing=Timing(
            latency_us=values["latency_us"],
            ttft_any_us=values["ttft_any_us"],
            ttft_output_us=values["ttft_output_us"],
            queue_us=values["queue_us"],
            chunks=values["chunks"],
            streamed=values["streamed"],
        ),
        error_reason=values["error_reason"],
        scored=values["scored"],
        created_us=values["created_us"],
    )
