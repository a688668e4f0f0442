"""The ledger: experiments, runs, claims, results, events."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Text, UniqueConstraint

from services.runtime.requests import request_ids_columns

revision = "0001"
down_revision = None

_BILL = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "usage_estimated",
    "cost_nano_usd",
    "unpriced_calls",
)


def upgrade() -> None:
    """Creates the tables of services/orchestrator/store/tables.py."""
    op.create_table("request_ids", *request_ids_columns())
    op.create_index("request_ids_created_us", "request_ids", ["created_us"])
    _create_experiments()
    _create_runs()
    _create_claims()
    _create_results()
    op.create_table("purges", *_text_keys("run_id"))


def _text_keys(*names: str) -> list[Column[Any]]:
    return [Column(name, Text, primary_key=True, nullable=False) for name in names]


def _int_keys(*names: str) -> list[Column[Any]]:
    return [Column(name, BigInteger, primary_key=True, nullable=False, autoincrement=False) for name in names]


def _texts(*names: str) -> list[Column[Any]]:
    return [Column(name, Text, nullable=False) for name in names]


def _ints(*names: str) -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False) for name in names]


def _small(*names: str) -> list[Column[Any]]:
    return [Column(name, Integer, nullable=False) for name in names]


def _flags(*names: str) -> list[Column[Any]]:
    return [Column(name, Boolean, nullable=False) for name in names]


def _blobs(*names: str) -> list[Column[Any]]:
    return [Column(name, LargeBinary, nullable=False) for name in names]


def _create_experiments() -> None:
    op.create_table("specs", *_text_keys("project_id", "spec_hash"), *_blobs("encoded"))
    op.create_table(
        "experiments",
        *_text_keys("experiment_id"),
        *_texts("project_id", "name", "description", "spec_hash"),
        *_ints("cells", "created_us", "updated_us"),
    )
    op.create_index("experiments_by_project", "experiments", ["project_id", "experiment_id"])


def _create_runs() -> None:
    op.create_table(
        "runs",
        *_text_keys("run_id"),
        *_texts("project_id", "experiment_id", "experiment_name", "spec_hash"),
        *_ints("cells"),
        *_small("concurrency", "attempts_max"),
        *_ints("timeout_ms"),
        *_small("requests_per_minute"),
        *_flags("retry_unknown"),
        *_texts("user_id", "key_id", "delegation_id"),
        *_ints("created_us"),
    )
    op.create_index("runs_by_project", "runs", ["project_id", "run_id"])
    op.create_index("runs_by_experiment", "runs", ["experiment_id", "run_id"])
    op.create_table(
        "run_progress",
        *_text_keys("run_id"),
        *_texts("status"),
        *_ints("started_us", "ended_us"),
        *_texts("failure"),
        *_ints("last_sequence", "next_cell", "done", "failed", "unknown", "cancelled", "scored", "attempts_failed"),
        *_ints(*_BILL),
        *_ints("latency_sum_us"),
    )
    op.create_index("run_progress_by_status", "run_progress", ["status"])
    op.create_table(
        "events", *_text_keys("run_id"), *_int_keys("sequence"), *_texts("kind", "payload"), *_ints("at_us")
    )


def _create_claims() -> None:
    op.create_table("workers", *_text_keys("worker_id"), *_ints("expires_us"))
    op.create_table(
        "shards",
        *_text_keys("run_id"),
        *_int_keys("first_cell"),
        *_ints("cells"),
        *_texts("worker_id"),
        *_ints("fence", "slots"),
    )
    op.create_index("shards_by_worker", "shards", ["worker_id"])
    op.create_table(
        "in_flight",
        *_text_keys("run_id"),
        *_int_keys("cell", "attempt"),
        *_texts("worker_id", "nonce"),
        *_ints("sent_us"),
    )
    op.create_table("retries", *_text_keys("run_id"), *_int_keys("cell"), *_ints("attempt", "not_before_us"))
    op.create_table(
        "attempts",
        *_text_keys("run_id"),
        *_int_keys("cell", "attempt"),
        *_texts("outcome", "reason"),
        *_ints(*_BILL),
        *_ints("at_us"),
    )


def _create_results() -> None:
    op.create_table(
        "results",
        *_text_keys("run_id"),
        *_int_keys("cell"),
        *_ints("sequence"),
        *_texts("status"),
        *_small("model"),
        *_ints("attempt", "attempts"),
        *_texts("finish_reason", "provider_model"),
        *_ints(*_BILL),
        *_ints("latency_us"),
        Column("ttft_any_us", BigInteger),
        Column("ttft_output_us", BigInteger),
        *_ints("queue_us", "chunks"),
        *_flags("streamed"),
        *_texts("error_reason"),
        *_flags("scored", "settled"),
        *_ints("created_us"),
        UniqueConstraint("run_id", "sequence", name="results_by_sequence"),
    )
    op.create_table("result_bodies", *_text_keys("run_id"), *_int_keys("cell"), *_blobs("answer", "error"))
    op.create_table("scores", *_text_keys("run_id"), *_int_keys("cell"), *_text_keys("score_set"), *_blobs("packed"))
