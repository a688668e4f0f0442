"""WatchRuns: the runs of a project as they change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from llmlab.api.orchestrator.v1 import run_pb2 as pb
from services.orchestrator.records import RunRecord
from services.orchestrator.run_changes import RunChanges
from services.runtime.errors import DomainError
from services.runtime.feeds import WatchPolicy

_log = logging.getLogger(__name__)

MESSAGE_RUNS: Final = 100
"""Runs of one message."""


async def watch_states(
    changes: RunChanges, policy: WatchPolicy, encode: Callable[[RunRecord], pb.Run]
) -> AsyncGenerator[pb.WatchRunsResponse, None]:
    """The runs that go on, then what changes; between them heartbeats. The next look waits until this one is read."""
    for message in _messages(await changes.first(), encode) or [pb.WatchRunsResponse()]:
        yield message
    told_s = time.monotonic()
    while True:
        await asyncio.sleep(policy.poll_ms / 1_000)
        try:
            changed = await changes.changed()
        except DomainError as error:
            _log.warning("runs cannot be read for now: %s", error.message)
            changed = []
        messages = _messages(changed, encode)
        if not messages and time.monotonic() - told_s >= policy.heartbeat_ms / 1_000:
            messages = [pb.WatchRunsResponse()]
        for message in messages:
            yield message
            told_s = time.monotonic()


def _messages(runs: Sequence[RunRecord], encode: Callable[[RunRecord], pb.Run]) -> list[pb.WatchRunsResponse]:
    starts = range(0, len(runs), MESSAGE_RUNS)
    return [pb.WatchRunsResponse(runs=map(encode, runs[start : start + MESSAGE_RUNS])) for start in starts]
