"""The witness: a JSON line per call received, on disk before the call is answered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from services.runtime.batcher import Batcher
from services.runtime.clock import SYSTEM_CLOCK

_MAX_BATCH = 1_024
_MAX_QUEUE = 100_000


class CallLog:
    """Appends lines; calls that arrive together share one fsync."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._batcher: Batcher[bytes, None] = Batcher(
            self._append, max_batch=_MAX_BATCH, max_queue=_MAX_QUEUE, name="call log"
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path | None) -> AsyncIterator[CallLog]:
        """The log at `path`, appended to; without a path nothing is written."""
        descriptor = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        log = cls(descriptor)
        try:
            yield log
        finally:
            await log._batcher.close()
            if descriptor is not None:
                os.close(descriptor)

    async def record(self, *, path: str, idempotency_key: str, model: str) -> None:
        """Write one call; returns when it is on disk."""
        if self._descriptor is None:
            return
        line = {
            "idempotency_key": idempotency_key,
            "received_at_us": SYSTEM_CLOCK.now_us(),
            "path": path,
            "model": model,
        }
        await self._batcher.submit(orjson.dumps(line) + b"\n")

    async def _append(self, lines: list[bytes]) -> Sequence[Exception | None]:
        await asyncio.to_thread(self._write, b"".join(lines))
        return [None] * len(lines)

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            return
        while data:
            data = data[os.write(self._descriptor, data) :]
        os.fsync(self._descriptor)
