"""Settings of the orchestrator."""

from __future__ import annotations

from pydantic import Field

from services.orchestrator.policy import WorkerPolicy
from services.runtime.backoff import Backoff
from services.runtime.watch_settings import WatchSettings


class OrchestratorSettings(WatchSettings, service="orchestrator"):
    """LLMLAB_ORCHESTRATOR_..."""

    max_cells_per_run: int = Field(1_000_000, ge=1, description="Cells that an experiment may have.")
    max_brand_sets_per_project: int = Field(1_000, ge=1, description="Brand sets that a project may have.")
    max_prompts_per_project: int = Field(10_000, ge=1, description="Prompts that a project may keep.")
    max_datasets_per_project: int = Field(1_000, ge=1, description="Datasets that a project may keep.")
    api: bool = Field(default=True, description="Serve the API; false: this process has workers and answers probes.")
    workers: int = Field(1, ge=0, le=16, description="Workers in this process; 0: it only answers requests.")

    lease_ms: int = Field(15_000, ge=1_000, description="A worker that hangs for so long loses its cells.")
    poll_ms: int = Field(1_000, ge=10, description="How often a worker looks for work that nobody hinted at.")
    worker_slots: int = Field(256, ge=1, description="Calls that one worker has under way, all runs together.")
    worker_reserved_share: float = Field(
        0.125, ge=0, le=0.5, description="Share of a worker's calls that is kept for runs that have none under way."
    )
    grant_max: int = Field(64, ge=1, description="Calls of one run that one claim lets a worker have under way.")
    shard_cells: int = Field(64, ge=1, le=64, description="Cells of one claim.")
    shards_per_run_max: int = Field(
        16, ge=1, description="Unfinished claims of one run in one worker; bounds answers that wait for their scores."
    )
    batch_calls_max: int = Field(64, ge=1, le=64, description="Calls of one request to the gateway.")
    batch_bytes_max: int = Field(2 * 1024 * 1024, ge=1024, description="Text of one request to the gateway, bytes.")
    refusals_max: int = Field(200, ge=1, description="Refused dispatches (limits, open breakers) before a cell fails.")
    unknown_after_ms: int = Field(
        5_000, ge=0, description="How long the outcome of a lost call is asked for before its cell is UNKNOWN."
    )
    cancel_grace_ms: int = Field(1_500, ge=0, description="How long a cancelled call may take to say how it ended.")
    drain_ms: int = Field(10_000, ge=0, description="How long a stopping worker waits for calls under way.")
    score_batch_max: int = Field(64, ge=1, le=256, description="Answers of one request to the metrics service.")
    score_tries_max: int = Field(
        8, ge=1, description="Requests for one answer's scores that may fail inside metrics before it has none."
    )
    scoring_concurrency: int = Field(2, ge=1, le=16, description="Requests to the metrics service under way per run.")
    judging_timeout_ms: int = Field(
        600_000, ge=1_000, description="Longest request to the metrics service for scores that models give."
    )
    settle_after_ms: int = Field(
        1_000, ge=0, description="How long the gateway has to confirm a cost before the ledger settles it itself."
    )
    bill_wait_ms: int = Field(
        60_000, ge=0, description="How long a run's end waits for a cost that the cost service does not confirm."
    )
    bill_sweep_ms: int = Field(
        10_000, ge=10, description="How often costs are asked for that became known after their result."
    )
    bill_life_ms: int = Field(
        26 * 3_600_000, ge=1_000, description="A cost that is not known after so long counts as unpriced."
    )
    retry_base_ms: int = Field(500, ge=1, description="Longest first wait before a cell is tried again; it doubles.")
    retry_cap_ms: int = Field(30_000, ge=1, description="Longest wait before a cell is tried again.")
    peer_base_ms: int = Field(100, ge=1, description="Longest first wait while another service is away; it doubles.")
    peer_cap_ms: int = Field(5_000, ge=1, description="Longest wait while another service is away.")

    trace_run_cells_max: int = Field(
        20, ge=0, description="About how many cells of a recorded run its trace follows; others leave no spans."
    )
    backlog_interval_s: float = Field(
        15.0, gt=0, description="How often telemetry counts the cells of unfinished runs."
    )
    spec_views_max: int = Field(32, ge=1, description="Decoded experiments that are kept for lists and watchers.")
    csv_guard_formulas: bool = Field(
        default=True, description="Put a ' before CSV texts that a spreadsheet would run as a formula."
    )

    def worker_policy(self) -> WorkerPolicy:
        """How workers behave."""
        return WorkerPolicy(
            lease_ms=self.lease_ms,
            poll_ms=self.poll_ms,
            slots_max=self.worker_slots,
            reserved_share=self.worker_reserved_share,
            grant_max=self.grant_max,
            shard_cells=self.shard_cells,
            shards_per_run_max=self.shards_per_run_max,
            batch_calls_max=self.batch_calls_max,
            batch_bytes_max=self.batch_bytes_max,
            refusals_max=self.refusals_max,
            unknown_after_ms=self.unknown_after_ms,
            cancel_grace_ms=self.cancel_grace_ms,
            drain_ms=self.drain_ms,
            score_batch_max=self.score_batch_max,
            score_tries_max=self.score_tries_max,
            scoring_concurrency=self.scoring_concurrency,
            judging_timeout_ms=self.judging_timeout_ms,
            settle_after_ms=self.settle_after_ms,
            bill_wait_ms=self.bill_wait_ms,
            bill_sweep_ms=self.bill_sweep_ms,
            bill_life_ms=self.bill_life_ms,
            traced_cells_max=self.trace_run_cells_max,
            retry=Backoff(self.retry_base_ms, self.retry_cap_ms),
            peer=Backoff(self.peer_base_ms, self.peer_cap_ms),
        )
