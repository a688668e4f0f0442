"""Files of results as text: CSV, JSON and JSON Lines, written piece by piece from any number of rows.

Texts in CSV are guarded against spreadsheets that would take them for formulas, unless the guard is switched off. JSON
is never altered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from services.orchestrator.calls import Money, RenderedMessages, Timing, Usage
from services.orchestrator.scores import Score
from services.orchestrator.values import Value, Values
from services.runtime.csv_text import csv_lines, guarded


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One result as a file shows it."""

    run_id: str
    cell_index: int
    status: str
    prompt_name: str
    row_index: int
    model: str
    parameters: Values
    repeat_index: int
    attempts: int
    finish_reason: str
    usage: Usage
    cost: Money
    timing: Timing
    error_reason: str
    error_message: str
    created_us: int
    scores: dict[str, float | None]
    request: RenderedMessages
    response: str
    brands: dict[str, int] | None = None
    """Mentions of each brand that the answer mentions, in their order; None where none were looked for."""
    judgements: dict[str, dict[str, object]] = field(default_factory=dict)
    """What judges say, by score."""


def judgements_of(scores: Iterable[Score]) -> dict[str, dict[str, object]]:
    """Verdict, interval, reasons and cost of each score that a model gave."""
    return {
        score.name: {
            "verdict": score.verdict,
            "low": score.low,
            "high": score.high,
            "reasons": list(score.reasons),
            "cost_nano_usd": score.cost.nano_usd,
            "unpriced_calls": score.cost.unpriced_calls,
            "absent_reason": score.absent_reason,
        }
        for score in scores
        if score.verdict
    }


class ExportWriter(Protocol):
    """Writes a file piece by piece: `begin`, then `rows` any number of times, then `end`."""

    def begin(self) -> bytes:
        """What stands before the first row."""
        ...

    def rows(self, rows: Sequence[ExportRow]) -> bytes:
        """What these rows add to the file; it may come with later ones."""
        ...

    def end(self) -> bytes:
        """What stands after the last row."""
        ...


_FIXED_COLUMNS = (
    "run_id",
    "cell_index",
    "status",
    "prompt_name",
    "row_index",
    "model",
    "repeat_index",
    "attempts",
    "finish_reason",
    "input_tokens",
    "cache_read_tokens",
    "output_tokens",
    "reasoning_tokens",
    "usage_estimated",
    "cost_nano_usd",
    "unpriced_calls",
    "latency_us",
    "ttft_any_us",
    "ttft_output_us",
    "queue_us",
    "chunks",
    "streamed",
    "error_reason",
    "error_message",
    "create_time",
    "request",
    "response",
    "brands",
    "judgements",
)


class CsvWriter:
    """One line a result.

    Parameters and scores become columns `parameter.<name>` and `score.<name>`, which have to be known before the first
    row; an absent value is an empty cell.
    """

    def __init__(self, parameters: Sequence[str], scores: Sequence[str], *, guard_formulas: bool = True) -> None:
        self._parameters = parameters
        self._scores = scores
        self._guard_formulas = guard_formulas

    def begin(self) -> bytes:
        """The header line."""
        names = [f"parameter.{name}" for name in self._parameters] + [f"score.{name}" for name in self._scores]
        return csv_lines([[*_FIXED_COLUMNS, *names]]).encode()

    def rows(self, rows: Sequence[ExportRow]) -> bytes:
        """One line for each row."""
        return csv_lines([self._cells(row) for row in rows]).encode()

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def _cells(self, row: ExportRow) -> list[object]:
        usage, timing = row.usage, row.timing
        return [
            row.run_id,
            row.cell_index,
            row.status,
            self._text(row.prompt_name),
            row.row_index,
            self._text(row.model),
            row.repeat_index,
            row.attempts,
            row.finish_reason,
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
            _bool(usage.estimated),
            row.cost.nano_usd,
            row.cost.unpriced_calls,
            timing.latency_us,
            timing.ttft_any_us,
            timing.ttft_output_us,
            timing.queue_us,
            timing.chunks,
            _bool(timing.streamed),
            row.error_reason,
            self._text(row.error_message),
            utc_text(row.created_us),
            self._text(json.dumps(_request(row), ensure_ascii=False)),
            self._text(row.response),
            self._text("; ".join(row.brands or ())),
            json.dumps(row.judgements, ensure_ascii=False) if row.judgements else "",
            *(self._value(row.parameters.get(name)) for name in self._parameters),
            *(row.scores.get(name) for name in self._scores),
        ]

    def _value(self, value: Value) -> object:
        if isinstance(value, tuple):
            return self._text(json.dumps(value, ensure_ascii=False))
        if isinstance(value, bool):
            return _bool(value)
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        return guarded(text) if self._guard_formulas else text


class JsonLinesWriter:
    """One JSON object a line."""

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def rows(self, rows: Sequence[ExportRow]) -> bytes:
        """One line for each row."""
        return "".join(f"{_json(row)}\n" for row in rows).encode()

    def end(self) -> bytes:
        """Nothing."""
        return b""


class JsonWriter:
    """One JSON array with an object for each result."""

    def __init__(self, *, is_first: bool = True) -> None:
        """`is_first`: no row stands before those to come."""
        self._separator = "\n" if is_first else ",\n"

    def begin(self) -> bytes:
        """The opening bracket."""
        return b"["

    def rows(self, rows: Sequence[ExportRow]) -> bytes:
        """The objects, separated from those before."""
        pieces: list[str] = []
        for row in rows:
            pieces.append(self._separator + _json(row))
            self._separator = ",\n"
        return "".join(pieces).encode()

    def end(self) -> bytes:
        """The closing bracket."""
        return b"\n]\n"


def _json(row: ExportRow) -> str:
    usage, timing = row.usage, row.timing
    document: dict[str, object] = {
        "run_id": row.run_id,
        "cell_index": row.cell_index,
        "status": row.status,
        "prompt_name": row.prompt_name,
        "row_index": row.row_index,
        "model": row.model,
        "parameters": dict(row.parameters),
        "repeat_index": row.repeat_index,
        "attempts": row.attempts,
        "finish_reason": row.finish_reason,
        "usage": {**usage._asdict(), "estimated": bool(usage.estimated)},
        "cost_nano_usd": row.cost.nano_usd,
        "unpriced_calls": row.cost.unpriced_calls,
        "timing": timing._asdict(),
        "error_reason": row.error_reason,
        "error_message": row.error_message,
        "create_time": utc_text(row.created_us),
        "scores": row.scores,
        "request": _request(row),
        "response": row.response,
    }
    if row.brands is not None:
        document["brands"] = row.brands
    if row.judgements:
        document["judgements"] = row.judgements
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _request(row: ExportRow) -> list[dict[str, str]]:
    return [{"role": role, "text": text} for role, text in row.request]


def _bool(value: object) -> str:
    return "true" if value else "false"


def utc_text(time_us: int) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC."""
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"
