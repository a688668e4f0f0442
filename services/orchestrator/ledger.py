"""What workers tell the ledger and what it answers: the words of its port.

Every durable step of a cell is a Write. Writes of all runs of a process go through one batcher; a batch is one
transaction.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from services.orchestrator.calls import NO_MONEY, NO_TIMING, NO_USAGE, Money, Timing, Usage
from services.orchestrator.congestion import ModelCalls
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.records import RunRecord
from services.orchestrator.states import CellStatus, RunStatus


class ShardKey(NamedTuple):
    """A claimed range of cells, and the claim: a holder with an older fence has lost it."""

    run_id: str
    first_cell: int
    fence: int


class Sent(NamedTuple):
    """A call may leave from now on.

    Answered False when it must not leave: the shard is no longer held, or the cell has its result already.
    """

    shard: ShardKey
    cell: int
    attempt: int
    nonce: str


class CellResult(NamedTuple):
    """A cell has ended. Its record of an attempt that gave the result is the result itself.

    `usage` and `cost` are this call's own; the ledger adds those of earlier attempts. `attempts` counts those that may
    have reached a provider, this one included. `settled` is False where the call's hold may still be open.
    """

    run_id: str
    cell: int
    attempt: int
    model: int
    status: CellStatus
    attempts: int
    finish_reason: str = ""
    provider_model: str = ""
    usage: Usage = NO_USAGE
    cost: Money = NO_MONEY
    timing: Timing = NO_TIMING
    error_reason: str = ""
    settled: bool = True
    answer: bytes = b""
    error: bytes = b""


class CellAgain(NamedTuple):
    """A dispatch gave no result; its cell is due again at `not_before_us`, None: never.

    `outcome` is as in records.AttemptRecord. `settled` is False where the call's hold may still be open.
    """

    run_id: str
    cell: int
    attempt: int
    outcome: str
    reason: str
    not_before_us: int | None
    usage: Usage = NO_USAGE
    cost: Money = NO_MONEY
    settled: bool = True


class CellScores(NamedTuple):
    """A cell's scores are there (see `scores.Scored`), and the brands in its answer where some are looked for."""

    run_id: str
    cell: int
    packed: bytes
    brands: bytes = b""
    merit: float | None = None


class CellSettled(NamedTuple):
    """An open bill of a cell is known, or never will be. `usage` and `cost` are added to what is on record.

    A bill that is not open any more changes nothing; nor does one of an unknown outcome that has become known since: an
    answer came late, and what the cost service guessed before is put right under the answer's own bill.
    """

    run_id: str
    cell: int
    attempt: int
    outcome_known: bool
    usage: Usage
    cost: Money


class ShardEnd(NamedTuple):
    """All cells of a shard seem to be finished. Answered False when they are not, or the shard is no longer held.

    The grant's slots go to `heir`, another shard of the same run and holder, but for `back` of them, which are given
    back; all of them are where it is None.
    """

    shard: ShardKey
    heir: int | None
    back: int = 0


class ShardBack(NamedTuple):
    """Nothing of a shard is under way: it and its slots are given back. Answered False when it is not held any more."""

    shard: ShardKey


class Exhausted(NamedTuple):
    """A budget has no room for another call of the run."""

    run_id: str


class Slowed(NamedTuple):
    """A worker has found out how many calls models take at once: for whoever watches the run."""

    run_id: str
    calls: tuple[ModelCalls, ...]


Write: TypeAlias = Sent | CellResult | CellAgain | CellScores | CellSettled | ShardEnd | ShardBack | Exhausted | Slowed


class ClaimRequest(NamedTuple):
    """What a worker could take on: new slots, and more cells of runs in which it has slots (`extend`).

    `capacity` slots are there for every run, `reserved` ones for runs that have none.
    """

    worker_id: str
    capacity: int
    extend: tuple[str, ...]
    shard_cells: int
    grant_max: int
    takeovers_max: int
    reserved: int = 0


class Claim(NamedTuple):
    """A range of cells that the worker now holds. `inherited`: somebody held it before, its cells have a history."""

    shard: ShardKey
    cells: int
    slots: int
    inherited: bool


class Dangling(NamedTuple):
    """A call of an earlier holder that may have left."""

    cell: int
    attempt: int


class DueRetry(NamedTuple):
    """A cell that waits for dispatch number `attempt`."""

    cell: int
    attempt: int
    not_before_us: int


class OpenBill(NamedTuple):
    """A call whose outcome is on record, and whose hold may still be open. `usage` is its own."""

    run_id: str
    cell: int
    attempt: int
    status: CellStatus
    usage: Usage
    provider_model: str
    created_us: int

    @property
    def outcome_known(self) -> bool:
        """Whether the cost service can be told how the call ended."""
        return self.status is not CellStatus.UNKNOWN


class SweptBill(NamedTuple):
    """An open bill whose turn it is. `overdue`: this is the last time."""

    project_id: str
    bill: OpenBill
    overdue: bool


class ShardState(NamedTuple):
    """What is in the ledger about the cells of a claimed range. Cells in none of the lists are untouched."""

    finished: frozenset[int]
    in_flight: tuple[Dangling, ...]
    retries: tuple[DueRetry, ...]
    histories: dict[int, CellHistory]
    unscored: tuple[int, ...]
    open_bills: tuple[OpenBill, ...]


class Pulse(NamedTuple):
    """What a heartbeat reads: the ranges that the worker holds, and where their runs stand."""

    held: tuple[Claim, ...]
    statuses: dict[str, RunStatus]


class StoredAnswer(NamedTuple):
    """The answer of a finished cell, for scoring after a takeover."""

    cell: int
    finish_reason: str
    body: bytes


class RunPlanRecord(NamedTuple):
    """What a worker needs to know of a run."""

    run: RunRecord
    encoded_spec: bytes
