"""The ledger's tables. Times are microseconds UTC, money is nano-USD, ids are text.

A run of a million cells has no rows for cells: a cell is its index in the product, `run_progress.next_cell` says how
far the claims have come, `shards` are the claimed ranges that are not finished yet, and what a cell leaves behind is
its result.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

from services.runtime.requests import request_ids_table

metadata = MetaData()


def _text(name: str, *, key: bool = False) -> Column[Any]:
    return Column(name, Text, primary_key=key, nullable=False)


def _int(name: str, *, key: bool = False) -> Column[Any]:
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False)


def _tokens() -> list[Column[Any]]:
    """Tokens (calls.Usage)."""
    names = (
        "input_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "input_audio_tokens",
        "output_tokens",
        "reasoning_tokens",
        "output_audio_tokens",
        "steps",
        "usage_estimated",
    )
    return [_int(name) for name in names]


def _usage() -> list[Column[Any]]:
    """Tokens and money (calls.Money)."""
    return [*_tokens(), _int("cost_nano_usd"), _int("unpriced_calls")]


specs = Table(
    "specs",
    metadata,
    _text("project_id", key=True),
    _text("spec_hash", key=True),
    Column("encoded", LargeBinary, nullable=False),
)
"""Specs by content: an experiment and all its runs share one."""

experiments = Table(
    "experiments",
    metadata,
    _text("experiment_id", key=True),
    _text("project_id"),
    _text("name"),
    _text("description"),
    _text("spec_hash"),
    _int("cells"),
    _int("created_us"),
    _int("updated_us"),
    Index("experiments_by_project", "project_id", "experiment_id"),
)


def _resources(name: str, noun: str, parts: str) -> Table:
    """A table of resources (resources.ResourceRecord) with their contents, one of each name and content a project."""
    return Table(
        name,
        metadata,
        Column(f"{noun}_id", Text, key="resource_id", primary_key=True, nullable=False),
        _text("project_id"),
        _text("name"),
        _text("content_hash"),
        Column(parts, Integer, key="parts", nullable=False),
        Column("encoded", LargeBinary, nullable=False),
        _int("created_us"),
        _int("updated_us"),
        UniqueConstraint("project_id", "name", name=f"{name}_by_name"),
        UniqueConstraint("project_id", "content_hash", name=f"{name}_by_content"),
        Index(f"{name}_by_project", "project_id", "resource_id"),
    )


brand_sets = _resources("brand_sets", "brand_set", "brand_count")
prompts = _resources("prompts", "prompt", "message_count")
datasets = _resources("datasets", "dataset", "row_count")

runs = Table(
    "runs",
    metadata,
    _text("run_id", key=True),
    _text("project_id"),
    _text("experiment_id"),
    _text("experiment_name"),
    _text("spec_hash"),
    _int("cells"),
    Column("concurrency", Integer, nullable=False),
    Column("attempts_max", Integer, nullable=False),
    _int("timeout_ms"),
    Column("requests_per_minute", Integer, nullable=False),
    Column("retry_unknown", Boolean, nullable=False),
    _int("max_cost_nano_usd"),
    Column("ignore_circuit_breaker", Boolean, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("fixed_concurrency", Boolean, nullable=False),
    _text("user_id"),
    _text("key_id"),
    _text("delegation_id"),
    _text("traceparent"),
    _int("created_us"),
    Index("runs_by_project", "project_id", "run_id"),
    Index("runs_by_experiment", "experiment_id", "run_id"),
)
"""What a run was started with; never changed."""

run_progress = Table(
    "run_progress",
    metadata,
    _text("run_id", key=True),
    _text("status"),
    _int("started_us"),
    _int("ended_us"),
    _text("failure"),
    _int("last_sequence"),
    _int("next_cell"),
    _int("retry_next"),
    _int("retry_end"),
    Column("retry_unknown", Boolean, nullable=False),
    _int("done"),
    _int("failed"),
    _int("unknown"),
    _int("cancelled"),
    _int("scored"),
    _int("attempts_failed"),
    *_usage(),
    _int("latency_sum_us"),
    Index("run_progress_by_status", "status"),
)
"""Where a run stands. Every transaction that changes a run locks its row first, which puts event sequences in order.

Cells from `next_cell` on have never been claimed. Those between `retry_next` and `retry_end` are to be claimed anew
where they have no answer (`retry_unknown`: also where their outcome is unknown)."""

shards = Table(
    "shards",
    metadata,
    _text("run_id", key=True),
    _int("first_cell", key=True),
    _int("cells"),
    _text("worker_id"),
    _int("fence"),
    _int("slots"),
    Index("shards_by_worker", "worker_id"),
)
"""Claimed ranges of cells that are not finished. `worker_id` is empty where nobody holds the range; `fence` grows with
each claim; `slots` are the calls that the range's grant allows under way."""

call_limits = Table(
    "call_limits",
    metadata,
    _text("run_id", key=True),
    Column("model", Integer, primary_key=True, nullable=False, autoincrement=False),
    _text("worker_id", key=True),
    Column("calls_max", Integer, nullable=False),
)
"""Calls that a worker lets a run have under way to a model that has refused some, for whoever watches. It counts while
the worker holds a range of the run."""

in_flight = Table(
    "in_flight",
    metadata,
    _text("run_id", key=True),
    _int("cell", key=True),
    _int("attempt", key=True),
    _text("worker_id"),
    _text("nonce"),
    _int("sent_us"),
)
"""The ledger's `sent`: calls that may have left. Written before a call leaves, deleted with its outcome."""

retries = Table(
    "retries",
    metadata,
    _text("run_id", key=True),
    _int("cell", key=True),
    _int("attempt"),
    _int("not_before_us"),
)
"""Cells that wait for another dispatch, and its number; what the earlier ones came to is in `attempts`."""

attempts = Table(
    "attempts",
    metadata,
    _text("run_id", key=True),
    _int("cell", key=True),
    _int("attempt", key=True),
    _text("outcome"),
    _text("reason"),
    *_usage(),
    _int("at_us"),
)
"""Dispatches that did not give their cell's result; the result itself is the record of the one that did."""

open_bills = Table(
    "open_bills",
    metadata,
    _text("run_id", key=True),
    _int("cell", key=True),
    _int("attempt", key=True),
    _text("status"),
    *_tokens(),
    _text("provider_model"),
    _int("created_us"),
    _int("ask_at_us"),
    Index("open_bills_by_time", "ask_at_us"),
)
"""Calls on record, in `results` or `attempts`, whose cost is not known; deleted when it is added there. `status` is how
the call ended, its tokens are its own."""

results = Table(
    "results",
    metadata,
    _text("run_id", key=True),
    _int("cell", key=True),
    _int("sequence"),
    _text("status"),
    Column("model", Integer, nullable=False),
    _int("attempt"),
    _int("attempts"),
    _text("finish_reason"),
    _text("provider_model"),
    *_usage(),
    _int("latency_us"),
    Column("ttft_any_us", BigInteger),
    Column("ttft_output_us", BigInteger),
    _int("queue_us"),
    _int("chunks"),
    Column("streamed", Boolean, nullable=False),
    _text("error_reason"),
    Column("scored", Boolean, nullable=False),
    _int("created_us"),
    UniqueConstraint("run_id", "sequence", name="results_by_sequence"),
    Index("results_by_status", "run_id", "status", "cell"),
    Index("results_by_latency", "run_id", "latency_us", "cell"),
    Index("results_by_cost", "run_id", "cost_nano_usd", "cell"),
)
"""One row for each cell that has ended. `model` is the index in the spec; the other digits follow from the cell."""

HAS_REASON = results.c.error_reason != literal_column("''")
Index(
    "results_by_reason",
    results.c.run_id,
    results.c.error_reason,
    results.c.cell,
    postgresql_where=HAS_REASON,
    sqlite_where=HAS_REASON,
)

result_bodies = Table(
    "result_bodies",
    metadata,
    _text("run_id", key=True),
    _int("cell", key=True),
    Column("answer", LargeBinary, nullable=False),
    Column("error", LargeBinary, nullable=False),
)

scores = Table(
    "scores",
    metadata,
    _text("run_id", key=True),
    _int("cell", key=True),
    _text("score_set", key=True),
    Column("packed", LargeBinary, nullable=False),
    Column("merit", Double),
)
"""Scores of answers, by score set; `merit` is the one that puts results in order, see `scores.Scored`."""

HAS_MERIT = scores.c.merit.is_not(None)
Index(
    "scores_by_merit",
    scores.c.run_id,
    scores.c.score_set,
    scores.c.merit,
    scores.c.cell,
    postgresql_where=HAS_MERIT,
    sqlite_where=HAS_MERIT,
)

score_sets = Table(
    "score_sets",
    metadata,
    _text("run_id", key=True),
    _text("score_set", key=True),
    Column("encoded", LargeBinary, nullable=False),
    _int("created_us"),
)
"""Score sets beside those that the run itself makes; `encoded` is a spec that has the scorers and nothing else."""

events = Table(
    "events",
    metadata,
    _text("run_id", key=True),
    _int("sequence", key=True),
    _text("kind"),
    _text("payload"),
    _int("at_us"),
)
"""Durable events but results, which are read from `results` by sequence: nothing is stored twice."""

workers = Table(
    "workers",
    metadata,
    _text("worker_id", key=True),
    _int("expires_us"),
)
"""Leases. A worker without a live row holds nothing."""

purges = Table("purges", metadata, _text("run_id", key=True))
"""Deleted runs whose rows are still being removed, batch by batch."""

request_ids = request_ids_table(metadata)
