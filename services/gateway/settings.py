"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from services.runtime.settings import ServiceSettings

_PROXY = r"^(http://([^\s/@]+@)?(\[[0-9A-Fa-f:.]+\]|[^\s/@:]+)(:\d{1,5})?/?)?$"


class GatewaySettings(ServiceSettings, service="gateway"):
    """Everything that can be set; provider keys are under the names that the catalogue gives (OPENAI_API_KEY ...).

    A name with _FILE behind it (OPENAI_API_KEY_FILE) is the path of a file with the key.
    """

    catalogue_file: Path | None = Field(None, description="YAML of more providers and models; see catalogue.yaml.")
    catalogue_poll_s: float = Field(2.0, gt=0, description="How often its file, and files of keys, are looked at.")
    max_concurrent_calls: int = Field(2_000, ge=1, description="Calls under way; more are refused as OVERLOADED.")
    default_timeout_ms: int = Field(60_000, ge=1, le=3_600_000, description="Timeout of a call that names none.")
    answer_margin_ms: int = Field(100, ge=0, description="A call ends so long before its RPC's deadline, to be told.")
    batch_flush_ms: float = Field(2.0, ge=0, description="How long outcomes of a batch wait for each other.")
    batch_flush_bytes: int = Field(1_048_576, ge=1_024, description="Outcomes in one message of a batch, in bytes.")
    stream_chunks_max: int = Field(256, ge=1, description="Chunks of a stream that wait for a slow reader.")

    accounting: Literal["cost", "off"] = Field(
        "cost",
        description="off: no cost service; nothing is held, no budget holds, and every call counts as unpriced.",
    )
    cost_timeout_ms: int = Field(5_000, ge=1, description="Deadline of one RPC to the cost service.")
    hold_wait_ms: int = Field(5_000, ge=1, description="How long a call waits for its hold before it is given up.")
    hold_margin_ms: int = Field(30_000, ge=1_000, description="A hold expires so long after its call's deadline.")
    settle_gather_ms: float = Field(
        20.0,
        ge=0,
        le=1_000,
        description="How long a settlement that nobody waits for waits for others to share an RPC.",
    )
    settle_later_s: float = Field(60.0, gt=0, description="How long a lost settlement is tried in the background.")
    settle_later_max: int = Field(10_000, ge=1, description="Settlements that may wait for the cost service.")
    hold_fail_open: bool = Field(
        default=True,
        description="Direct calls of projects without a hard budget go on while the cost service is away.",
    )
    hold_fail_open_for_s: float = Field(
        900.0, gt=0, description="So long after a project's budgets were last read its calls go on without a hold."
    )
    late_bills_max: int = Field(
        100_000, ge=1, description="Bills kept in <home>/gateway-late-bills.db while the cost service is away."
    )
    cost_batch_max: int = Field(256, ge=1, le=256, description="Holds or settlements in one RPC to the cost service.")
    cost_queue_max: int = Field(10_000, ge=1, description="Holds or settlements of one project that may wait.")
    cost_projects_max: int = Field(1_000, ge=1, description="Projects whose batches are kept open at a time.")

    retries_max: int = Field(2, ge=0, le=10, description="Further attempts of a direct call that names no number.")
    retry_ambiguous: bool = Field(
        default=True,
        description="Direct calls go on after a lost connection or an early cut, also if both attempts must be paid.",
    )
    retry_base_ms: int = Field(250, ge=1, description="Longest wait before the first retry; doubles with each one.")
    retry_cap_ms: int = Field(10_000, ge=1, description="Longest wait before a retry, without a Retry-After.")
    retry_budget_share: float = Field(0.2, ge=0, le=1, description="Retries that each call allows its deployment.")
    retry_budget_per_minute: float = Field(10.0, ge=0, description="Retries a minute that a deployment has besides.")
    retry_budget_max: float = Field(100.0, ge=0, description="Retries that a deployment can save up.")
    deployments_max: int = Field(10_000, ge=1, description="Deployments whose state is kept; the oldest is forgotten.")

    key_requests_per_minute: int = Field(0, ge=0, description="Requests a minute of one API key; 0: no limit.")
    key_tokens_per_minute: int = Field(0, ge=0, description="Tokens a minute of one API key; 0: no limit.")
    key_burst_s: float = Field(10.0, gt=0, le=60, description="Burst of a key's limits, in seconds of their rate.")
    limit_wait_ms: int = Field(1_000, ge=0, description="How long a call waits for a limit before it is refused.")
    redis_timeout_ms: int = Field(
        50, ge=1, description="How long a call waits for Redis, connecting included, when it goes away."
    )
    limit_share_without_redis: float = Field(
        0.5, gt=0, le=1, description="Share of every limit that each replica keeps to while Redis is away."
    )
    limit_figures_every_s: float = Field(
        15.0, gt=0, description="How often telemetry looks how full the limits of deployments are."
    )
    limit_figures_max: int = Field(100, ge=0, description="Limits that telemetry shows at most: the fullest ones.")
    limit_buckets_max: int = Field(20_000, ge=1, description="Limits kept in memory; the oldest is forgotten.")

    cache_deterministic: bool = Field(
        default=True,
        description="Direct calls at temperature 0, or with a seed, use the cache unless told not to.",
    )
    cache_ttl_s: float = Field(3_600.0, gt=0, description="How long an answer is kept, in seconds.")
    cache_max_bytes: int = Field(67_108_864, ge=0, description="Answers kept in memory without Redis, bytes; 0: none.")
    cache_answer_max_bytes: int = Field(
        1_048_576, ge=1_024, description="Larger answers are not kept, and can be joined only until they are as large."
    )

    breaker_window_s: float = Field(30.0, gt=0, description="How far back calls count for a circuit breaker.")
    breaker_failure_ratio: float = Field(0.5, gt=0, le=1, description="Share of failed calls that opens a breaker.")
    breaker_calls_min: int = Field(20, ge=1, description="Calls in the window before their share of failures counts.")
    breaker_consecutive_failures: int = Field(10, ge=1, description="Failures in a row that open a breaker.")
    breaker_open_s: float = Field(5.0, gt=0, description="First time open; doubles with every opening that follows.")
    breaker_open_max_s: float = Field(120.0, gt=0, description="Longest time open.")
    breaker_probes_max: int = Field(1, ge=1, description="Calls under way through a half-open breaker.")
    breaker_share_every_ms: int = Field(
        200, ge=1, description="How often replicas ask Redis for each other's breakers."
    )
    breaker_unanswered_s: float = Field(
        10.0, gt=0, description="A call that heard nothing for so long before its deadline counts as failed."
    )

    chat_history: bool = Field(
        default=False, description="Keep chat sessions, in the database of LLMLAB_GATEWAY_DATABASE_URL."
    )
    chat_history_tokens: int = Field(
        32_000, ge=1, description="Tokens of earlier turns sent along, where a session does not say."
    )
    chat_sessions_max: int = Field(10_000, ge=1, description="Chat sessions of one project.")
    chat_session_turns_max: int = Field(1_000, ge=1, description="Turns of one chat session.")
    chat_turns_max: int = Field(1_000, ge=1, description="Chat turns under way in this process.")
    chat_waiting_reads_max: int = Field(
        256, ge=1, description="Reads of one turn that wait for the database; the provider is read no faster."
    )
    chat_alive_s: float = Field(
        20.0, ge=1, description="A turn that shows no life for so long is given up: its gateway was lost."
    )
    chat_poll_ms: int = Field(500, ge=10, description="How often a turn's followers look where nobody hints at news.")

    automations_max: int = Field(1_000, ge=1, description="Started automations that are remembered, ended or not.")
    automations_kept_s: float = Field(
        86_400.0, gt=0, description="How long Redis keeps a started automation, so that any replica can be asked."
    )

    automation_cancel_wait_ms: int = Field(
        1_000, ge=1, description="How long cancelling an automation waits for the replica that runs it to say so."
    )

    provider_connect_timeout_s: float = Field(5.0, gt=0, description="Time to connect to a provider.")
    provider_connections_max: int = Field(512, ge=1, description="Connections to one provider.")
    provider_proxy: str = Field(
        "", pattern=_PROXY, description="HTTP proxy before providers, http://[user:password@]host:port; empty: none."
    )
    provider_answer_max_bytes: int = Field(16_777_216, ge=1_024, description="Largest unstreamed answer of a provider.")

    mock_ttft_ms: float | None = Field(None, ge=0, description="Time to first token of all mock models; empty: theirs.")
    mock_tokens_per_second: float | None = Field(
        None, ge=0, description="Token rate of all mock models, 0: at once; empty: theirs."
    )
    mock_calls_at_once: int = Field(
        0, ge=0, description="Calls that the mock has under way; more are answered with status 429. 0: no limit."
    )

    @property
    def has_database(self) -> bool:
        """Only chat sessions need one."""
        return self.chat_history

    @property
    def mock_overrides(self) -> dict[str, float]:
        """What the settings say about every mock model, as its options."""
        overrides = {"ttft_ms": self.mock_ttft_ms, "tokens_per_second": self.mock_tokens_per_second}
        return {name: value for name, value in overrides.items() if value is not None}
