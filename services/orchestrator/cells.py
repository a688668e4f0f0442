"""Which cells of a run a worker has, which of them wait, and which may be called now."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from services.orchestrator.congestion import CallWindows
from services.orchestrator.ledger import Sent, ShardKey
from services.orchestrator.outcomes import CellHistory
from services.orchestrator.plan import RunPlan
from services.orchestrator.rate import TokenBucket
from services.runtime.clock import Clock

_NO_HISTORY = CellHistory()


@dataclass(slots=True)
class Shard:
    """A claimed range. `open` are its cells that are not finished."""

    key: ShardKey
    cells: int
    slots: int
    open: set[int] = field(default_factory=set)
    suspended: bool = False
    """The ledger refused something about it: look again before anything else."""
    ending: bool = False
    """Its end is on its way to the ledger."""

    @property
    def range(self) -> range:
        """Its cells."""
        return range(self.key.first_cell, self.key.first_cell + self.cells)


class CellQueue:
    """The cells of one run in one worker. Fresh cells wait in order, retries until they are due."""

    def __init__(
        self, plan: RunPlan, clock: Clock, windows: CallWindows, ended: Callable[[int], None] = lambda _: None
    ) -> None:
        """`ended` hears of each cell for which nothing is left to do here."""
        self.shards: dict[int, Shard] = {}
        self.calls: dict[int, int] = {}
        """Calls under way, or whose outcome is on its way to the ledger: the attempt of each cell."""
        self._plan = plan
        self._clock = clock
        self._ended = ended
        self._windows = windows
        self._owners: dict[int, Shard] = {}
        self._histories: dict[int, CellHistory] = {}
        # A cell waits when it is in this set; entries of the queues that are not are stale and skipped.
        self._waiting: set[int] = set()
        # Cells whose turn came when their model had no room, by model: the others go past them.
        self._aside: dict[int, deque[int]] = {}
        self._fresh: deque[int] = deque()
        self._due: list[tuple[float, int]] = []
        self._bucket: TokenBucket | None = None

    @property
    def slots(self) -> int:
        """Calls that may be under way."""
        return sum(shard.slots for shard in self.shards.values())

    @property
    def waiting(self) -> int:
        """Cells that are not under way."""
        return len(self._waiting)

    @property
    def holds_back(self) -> bool:
        """Whether cells wait for answers of their model."""
        return any(self._aside.values())

    def add(self, shard: Shard) -> None:
        """Take a range on; its cells come with `open_cell`."""
        self.shards[shard.key.first_cell] = shard

    def remove(self, shard: Shard) -> None:
        """Let go of a range; calls under way go on, and what came before them counts in their outcome."""
        self.shards.pop(shard.key.first_cell, None)
        for cell in shard.open:
            self._owners.pop(cell, None)
            self._waiting.discard(cell)
            self._ended(cell)

    def shard_of(self, cell: int) -> Shard | None:
        """The range that a cell that is not finished belongs to."""
        return self._owners.get(cell)

    def history(self, cell: int) -> CellHistory:
        """What the cell's earlier dispatches came to."""
        return self._histories.get(cell, _NO_HISTORY)

    def know(self, histories: Mapping[int, CellHistory]) -> None:
        """Learn what earlier dispatches came to, unless more is known here: a call id is never used again."""
        for cell, history in histories.items():
            if history.next_attempt > self.history(cell).next_attempt:
                self._histories[cell] = history

    def open_cell(self, shard: Shard, cell: int) -> None:
        """A cell of the range is not finished."""
        shard.open.add(cell)
        self._owners[cell] = shard

    def finish(self, cell: int) -> None:
        """Nothing is left to do for a cell."""
        shard = self._owners.pop(cell, None)
        if shard is not None:
            shard.open.discard(cell)
        self._waiting.discard(cell)
        self._histories.pop(cell, None)
        self._ended(cell)

    def is_busy(self, cell: int) -> bool:
        """Whether the cell waits or is under way."""
        return cell in self._waiting or cell in self.calls

    def push(self, shard: Shard, cells: Iterable[int]) -> None:
        """Cells that may be dispatched at once."""
        for cell in cells:
            self.open_cell(shard, cell)
            self._waiting.add(cell)
            self._fresh.append(cell)

    def push_later(self, cell: int, delay_s: float) -> None:
        """A cell that may be dispatched again after a while."""
        if cell in self._owners:
            self._waiting.add(cell)
            heapq.heappush(self._due, (self._clock.monotonic_s() + delay_s, cell))

    def count(self, cell: int, outcome: str, attempt: int) -> None:
        """One more dispatch of the cell gave no result."""
        self._histories[cell] = self.history(cell).plus(outcome, attempt)

    def drop_waiting(self) -> None:
        """Give up all cells that are not under way: they stay without a result."""
        for cell in list(self._waiting):
            self.finish(cell)
        self._fresh.clear()
        self._due.clear()
        self._aside.clear()

    def take(self, limit: int, new_nonce: Callable[[], str]) -> list[Sent]:
        """Up to `limit` cells that may be called now, as the rate allows; they count as under way from here on."""
        taken: list[Sent] = []
        while len(taken) < limit:
            cell = self._next_cell()
            if cell is None or not self._rate_allows(cell):
                break
            self._pop(cell)
            attempt = self.history(cell).next_attempt
            self.calls[cell] = attempt
            self._windows.begin(cell)
            taken.append(Sent(self._owners[cell].key, cell, attempt, new_nonce()))
        return taken

    def wait_s(self) -> float | None:
        """Seconds until a waiting cell may be called, by its due time, the rate and the pauses of models.

        None where none waits, or until an answer has come.
        """
        cell = self._next_cell()
        now_s = self._clock.monotonic_s()
        if cell is not None:
            return self._bucket.wait_s(now_s) if self._bucket is not None else 0.0
        waits_s = [max(0.0, self._due[0][0] - now_s)] if self._due else []
        pauses_s = (self._windows.of(model).wait_s for model, cells in self._aside.items() if cells)
        waits_s += [wait_s for wait_s in pauses_s if wait_s is not None]
        return min(waits_s, default=None)

    def _next_cell(self) -> int | None:
        """The cell whose turn it is, of those whose model has room: set aside, a retry that is due, or fresh."""
        for model, cells in self._aside.items():
            while cells and cells[0] not in self._waiting:
                cells.popleft()
            if cells and self._windows.of(model).has_room:
                return cells[0]
        while (cell := self._head()) is not None and not self._windows.admits(cell):
            self._pop_head(cell)
            self._aside.setdefault(self._windows.model_of(cell), deque()).append(cell)
        return cell

    def _head(self) -> int | None:
        """A retry that is due, else the next fresh cell."""
        while self._due and self._due[0][1] not in self._waiting:
            heapq.heappop(self._due)
        if self._due and self._due[0][0] <= self._clock.monotonic_s():
            return self._due[0][1]
        while self._fresh and self._fresh[0] not in self._waiting:
            self._fresh.popleft()
        return self._fresh[0] if self._fresh else None

    def _pop(self, cell: int) -> None:
        aside = self._aside.get(self._windows.model_of(cell)) if self._aside else None
        if aside and aside[0] == cell:
            aside.popleft()
        else:
            self._pop_head(cell)
        self._waiting.discard(cell)

    def _pop_head(self, cell: int) -> None:
        if self._fresh and self._fresh[0] == cell:
            self._fresh.popleft()
        else:
            heapq.heappop(self._due)

    def _rate_allows(self, cell: int) -> bool:
        """Take a token for the cell's call. The lane keeps its share of the run's rate: its share of the slots."""
        rate = self._plan.requests_per_minute(cell)
        if not rate:
            return True
        share = rate * max(self.slots, 1) / self._plan.limits.concurrency
        now_s = self._clock.monotonic_s()
        if self._bucket is None:
            self._bucket = TokenBucket(share, now_s)
        else:
            self._bucket.change(share, now_s)
        return self._bucket.take(1, now_s) == 1
