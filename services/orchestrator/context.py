"""What all runs in a worker share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.ports import Bills, Gateway, Ledger, Metrics
from services.orchestrator.writer import LedgerWriter
from services.runtime.clock import Clock

if TYPE_CHECKING:
    from services.runtime.spans import Tracer


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """A worker's ports, limits, time and chance, and the ways in which a lane speaks to its worker."""

    ledger: Ledger
    writer: LedgerWriter
    gateway: Gateway
    metrics: Metrics
    bills: Bills
    policy: WorkerPolicy
    clock: Clock
    rng: random.Random
    answer_text: Callable[[bytes], str]
    """The visible text of an encoded answer."""
    may_send: Callable[[], bool]
    """Whether the worker's lease is good: it sends nothing after its own deadline."""
    to_give_back: Callable[[str, int], int]
    """How many of so many slots of a finished shard a run gives back for others; a worker at its capacity shares."""
    changed: Callable[[], None]
    """Tells the worker that a lane may want cells, or has finished."""
    suspects: Callable[[], None]
    """Tells the worker to look at once which shards it still holds."""
    tracer: Tracer | None = None
    """Records cells of runs that are recorded."""
