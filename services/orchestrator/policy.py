"""How workers behave: every limit and interval of theirs, in one value that settings fill in."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.runtime.backoff import Backoff


@dataclass(frozen=True, slots=True)
class WorkerPolicy:
    """Limits and intervals of a worker."""

    lease_ms: int = 15_000
    """A worker that does not renew its lease for so long has lost its cells."""
    poll_ms: int = 1_000
    """How often a worker looks for work when nothing wakes it."""
    slots_max: int = 256
    """Calls under way that a worker takes on, all runs together."""
    reserved_share: float = 0.125
    """The share of these that is kept for runs that have none."""
    grant_max: int = 64
    """Slots of one run that one claim gives at the most."""
    shard_cells: int = 64
    """Cells of one claim."""
    shards_per_run_max: int = 16
    """Unfinished shards that a worker holds of one run: beyond it no further call is made, for example while the
    metrics service is down and answers wait for their scores."""
    batch_calls_max: int = 64
    """Calls of one request to the gateway."""
    batch_bytes_max: int = 2 * 1024 * 1024
    """Text of one request to the gateway, UTF-8 bytes; a single larger call goes alone."""
    refusals_max: int = 200
    """Dispatches of one cell that nobody takes, before the cell is given up."""
    unknown_after_ms: int = 5_000
    """How long the outcome of a lost call is asked for before it is UNKNOWN."""
    cancel_grace_ms: int = 1_500
    """How long a cancelled call may take to say how it ended."""
    drain_ms: int = 10_000
    """How long a stopping worker waits for its calls; what is left is resolved by whoever takes over."""
    stream_margin_ms: int = 10_000
    """A request to the gateway may take this much longer than the calls in it."""
    score_batch_max: int = 64
    """Answers of one request to the metrics service."""
    score_tries_max: int = 8
    """Requests for the scores of one answer that may end in a fault or a timeout of the metrics service before the
    answer stays without scores. A metrics service that is away is waited for."""
    scoring_concurrency: int = 2
    """Requests to the metrics service under way for one run."""
    judging_timeout_ms: int = 600_000
    """The longest request to the metrics service for scores that models give."""
    settle_after_ms: int = 1_000
    """How long the gateway has to confirm the cost of an answer before the ledger settles it itself."""
    bill_wait_ms: int = 60_000
    """How long a cell waits for the cost of a call with a known outcome before its run may end without it."""
    bill_sweep_ms: int = 10_000
    """How often costs are asked for that no run waits for; less often the longer one is open."""
    bill_life_ms: int = 26 * 3_600_000
    """After so long a cost that is not known counts as unpriced; a hold lives 24 hours at the most."""
    traced_cells_max: int = 20
    """About how many cells of a run that is recorded are followed in its trace."""
    retry: Backoff = field(default_factory=lambda: Backoff(base_ms=500, cap_ms=30_000))
    """Waits before a cell is tried again."""
    peer: Backoff = field(default_factory=lambda: Backoff(base_ms=100, cap_ms=5_000))
    """Waits while another service, or the database, is away."""

    @property
    def slots_reserved(self) -> int:
        """Calls under way that are kept for runs that have none."""
        return int(self.slots_max * self.reserved_share)
