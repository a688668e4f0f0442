"""Everything that a worker writes goes through here: many writers, one transaction at a time, nothing given up."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from services.orchestrator.ledger import Sent, ShardBack, ShardEnd, Write
from services.orchestrator.ports import Ledger
from services.orchestrator.topics import run_topic
from services.runtime.backoff import Backoff
from services.runtime.batcher import Batcher
from services.runtime.errors import DomainError
from services.runtime.hints import Hints

_BATCH_MAX = 128
_QUEUE_MAX = 4_096

_log = logging.getLogger(__name__)


class LedgerWriter:
    """Group commit of one worker's writes.

    Writes may be repeated without harm, so a database that is away is waited for: a paid answer is not dropped because
    a commit failed.
    """

    def __init__(self, ledger: Ledger, worker_id: str, backoff: Backoff, rng: random.Random, hints: Hints) -> None:
        self._ledger = ledger
        self._worker_id = worker_id
        self._backoff = backoff
        self._rng = rng
        self._hints = hints
        self._batcher: Batcher[Sequence[Write], list[bool]] = Batcher(
            self._flush, max_batch=_BATCH_MAX, max_queue=_QUEUE_MAX, name="ledger"
        )

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """Commit, and tell for each write whether the ledger accepted it. Waits as long as the database is away."""
        failures = 0
        while True:
            try:
                return await self._batcher.submit(writes)
            except DomainError as error:
                if error.reason == "SHUTTING_DOWN":
                    raise
                failures += 1
                _log.warning("the ledger could not be written, trying again: %s", error.message)
                await asyncio.sleep(self._backoff.delay_ms(failures, self._rng) / 1_000)

    async def close(self) -> None:
        """Commit what is queued."""
        await self._batcher.close()

    async def _flush(self, batches: list[Sequence[Write]]) -> list[list[bool]]:
        answers = await self._ledger.commit(self._worker_id, batches)
        for run_id in {_run_of(write) for batch in batches for write in batch if not isinstance(write, Sent)}:
            self._hints.publish(run_topic(run_id))
        return answers


def _run_of(write: Write) -> str:
    return write.shard.run_id if isinstance(write, Sent | ShardEnd | ShardBack) else write.run_id
