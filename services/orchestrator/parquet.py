"""Files of results as Apache Parquet: typed columns, bounded row groups, the same bytes for the same results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from services.orchestrator.exports import ExportRow
from services.orchestrator.values import Value, Values

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS: Final = 4_096
GROUP_CHARACTERS: Final = 8 * 1024 * 1024
"""A row group ends with either: what is kept in memory until it is written."""


class _Sink:
    """Takes what the writer writes until somebody fetches it."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


class ParquetWriter:
    """Implements exports.ExportWriter. Parameters and scores are columns `parameter.<name>` and `score.<name>`."""

    def __init__(self, parameters: Mapping[str, Sequence[Value]], scores: Sequence[str]) -> None:
        """`parameters`: the values that each one takes, which decide its type; scores have to be known before."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._types = {name: _type_of(values) for name, values in parameters.items()}
        self._scores = scores
        self._schema = _schema(pa, self._types, scores)
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._schema, compression="zstd")
        self._batch = pa.RecordBatch
        self._rows: list[dict[str, object]] = []
        self._characters = 0

    def begin(self) -> bytes:
        """The magic number."""
        return self._sink.taken()

    def rows(self, rows: Sequence[ExportRow]) -> bytes:
        """The row groups that these rows complete."""
        for row in rows:
            self._rows.append(self._values(row))
            self._characters += len(row.response) + sum(len(text) for _, text in row.request)
            if len(self._rows) >= GROUP_ROWS or self._characters >= GROUP_CHARACTERS:
                self._write_group()
        return self._sink.taken()

    def end(self) -> bytes:
        """The last row group and the footer."""
        if self._rows:
            self._write_group()
        self._writer.close()
        return self._sink.taken()

    def _write_group(self) -> None:
        self._writer.write_batch(self._batch.from_pylist(self._rows, schema=self._schema))
        self._rows, self._characters = [], 0

    def _values(self, row: ExportRow) -> dict[str, object]:
        usage, timing = row.usage._asdict(), row.timing
        tokens = {name: usage[name] for name in _TOKENS}
        return {
            "run_id": row.run_id,
            "cell_index": row.cell_index,
            "status": row.status,
            "prompt_name": row.prompt_name,
            "row_index": row.row_index,
            "model": row.model,
            "repeat_index": row.repeat_index,
            "attempts": row.attempts,
            "finish_reason": row.finish_reason,
            **tokens,
            "usage_estimated": bool(row.usage.estimated),
            "cost_nano_usd": row.cost.nano_usd,
            "unpriced_calls": row.cost.unpriced_calls,
            "latency_us": timing.latency_us,
            "ttft_any_us": timing.ttft_any_us,
            "ttft_output_us": timing.ttft_output_us,
            "queue_us": timing.queue_us,
            "chunks": timing.chunks,
            "streamed": bool(timing.streamed),
            "error_reason": row.error_reason,
            "error_message": row.error_message,
            "create_time": row.created_us,
            "request": [{"role": role, "text": text} for role, text in row.request],
            "response": row.response,
            "brands": None if row.brands is None else list(row.brands.items()),
            "judgements": json.dumps(row.judgements, ensure_ascii=False) if row.judgements else None,
            **{f"parameter.{name}": self._parameter(name, row.parameters) for name in self._types},
            **{f"score.{name}": row.scores.get(name) for name in self._scores},
        }

    def _parameter(self, name: str, values: Values) -> object:
        value = values.get(name)
        if value is None or self._types[name] is not str:
            return value
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_TOKENS: Final = ("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")


def _type_of(values: Iterable[Value]) -> type:
    """The narrowest type that holds all values; texts hold what is mixed, as JSON."""
    types = {type(value) for value in values if value is not None}
    if types == {bool}:
        return bool
    if types and types <= {int, float}:
        return int if types == {int} else float
    return str


def _schema(pa: Any, parameters: Mapping[str, type], scores: Sequence[str]) -> pa.Schema:
    text, whole, flag = pa.string(), pa.int64(), pa.bool_()
    optional = {"ttft_any_us": whole, "ttft_output_us": whole}
    message = pa.struct([("role", text), ("text", text)])
    fields: dict[str, Any] = {
        **dict.fromkeys(("run_id",), text),
        "cell_index": whole,
        **dict.fromkeys(("status", "prompt_name"), text),
        "row_index": whole,
        "model": text,
        **dict.fromkeys(("repeat_index", "attempts"), whole),
        "finish_reason": text,
        **dict.fromkeys(_TOKENS, whole),
        "usage_estimated": flag,
        **dict.fromkeys(("cost_nano_usd", "unpriced_calls", "latency_us"), whole),
        **optional,
        **dict.fromkeys(("queue_us", "chunks"), whole),
        "streamed": flag,
        **dict.fromkeys(("error_reason", "error_message"), text),
        "create_time": pa.timestamp("us", tz="UTC"),
        "request": pa.list_(message),
        "response": text,
        "brands": pa.map_(text, whole),
        "judgements": text,
    }
    kinds = {bool: flag, int: whole, float: pa.float64(), str: text}
    fields |= {f"parameter.{name}": kinds[kind] for name, kind in parameters.items()}
    fields |= {f"score.{name}": pa.float64() for name in scores}
    return pa.schema(list(fields.items()))
