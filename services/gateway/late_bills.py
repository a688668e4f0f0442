"""Bills that the cost service has not taken: kept on this machine until it does.

Every bill is sent until the cost service has answered it, and holds and settlements are idempotent by the attempt's id:
so each is charged exactly once, whatever dies in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from services.gateway.calls import Owner
from services.gateway.cost_port import AMBIGUOUS_CODES, CostPort, Reservation, Settlement
from services.gateway.usage import TokenUsage
from services.runtime.errors import DomainError
from services.runtime.tracing import continued

_log = logging.getLogger(__name__)

_BATCH = 64
_PAUSE_AT_MOST_S = 15.0

# The cost service can hold nothing for the attempt any more, but what it took is owed.
_RECORD_INSTEAD = frozenset({"BUDGET_EXCEEDED", "UNPRICED", "HOLD_TOMBSTONED"})


class JournalFull(Exception):
    """The journal keeps no more, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What is owed for one attempt. With a `reservation` nothing was held for it before it left.

    `traceparent` is the trace context of its call; empty where that is not recorded.
    """

    owner: Owner
    settlement: Settlement
    reservation: Reservation | None = None
    traceparent: str = ""


class Journal(Protocol):
    """Where late bills are kept. Survives the process."""

    async def add(self, attempt_id: str, bill: bytes) -> None:
        """Keep a bill; durable when it returns. Raises JournalFull."""
        ...

    async def oldest(self, limit: int) -> Sequence[tuple[str, bytes]]:
        """The bills that are kept, in the order in which they came."""
        ...

    async def remove(self, attempt_ids: Iterable[str]) -> None:
        """Forget bills that were taken."""
        ...


class LateBills:
    """Keeps bills and sends them when the cost service is there. `full`: the last one could not be kept."""

    def __init__(self, journal: Journal, cost: CostPort, pause_s: float = 1.0) -> None:
        """`pause_s` after the cost service was found away for the first time; it doubles with every time."""
        self._journal = journal
        self._cost = cost
        self._pause_s = pause_s
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self.full = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send what is kept, also from a process before this one, and what will be."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_sending(), name="late-bills")

    async def add(self, bill: Bill) -> None:
        """Keep a bill; durable when it returns. Raises JournalFull."""
        self.full = True
        await self._journal.add(bill.settlement.attempt_id, encode_bill(bill))
        self.full = False
        self.start()
        self._idle.clear()
        self._wake.set()

    async def close(self, timeout_s: float) -> None:
        """Give what is kept this much time; the rest is sent by the next process that has the same home."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep_sending(self) -> None:
        pause_s = self._pause_s
        while True:
            try:
                # Cleared before the look: what is added during it wakes the next one.
                self._wake.clear()
                if not await self._send_oldest():
                    self._idle.set()
                    await self._wake.wait()
                pause_s = self._pause_s
            except (DomainError, JournalFull) as error:
                _log.debug("late bills wait: %s", error)
                pause_s = await self._paused(pause_s)
            except Exception:  # noqa: BLE001 (a bill that nobody can read must not keep the others for ever)
                _log.exception("a late bill could not be sent")
                pause_s = await self._paused(pause_s)

    @staticmethod
    async def _paused(pause_s: float) -> float:
        """Wait; returns how long to wait the next time."""
        await asyncio.sleep(pause_s)
        return min(pause_s * 2, _PAUSE_AT_MOST_S)

    async def _send_oldest(self) -> bool:
        """Send some; returns whether there were any. Raises DomainError where the cost service is still away."""
        kept = await self._journal.oldest(_BATCH)
        if not kept:
            return False
        sent = await asyncio.gather(*(self._send_kept(bill) for _, bill in kept), return_exceptions=True)
        failures = [error for error in sent if isinstance(error, BaseException)]
        done = [attempt_id for (attempt_id, _), error in zip(kept, sent, strict=True) if error is None]
        await self._journal.remove(done)
        self.full = self.full and not done
        if done:
            _log.info("%d late bills were taken by the cost service", len(done))
        if failures:
            raise failures[0]
        return True

    async def _send_kept(self, kept: bytes) -> None:
        bill = decode_bill(kept)
        with continued(bill.traceparent):
            await self.send(bill)

    async def send(self, bill: Bill) -> None:
        """Send one; a refusal, which no repetition changes, is logged. Raises DomainError where it must come again."""
        if bill.reservation is not None:
            try:
                await self._cost.hold(bill.owner, bill.reservation)
            except DomainError as error:
                _raise_if_away(error)
                if error.reason in _RECORD_INSTEAD:
                    with _told_when_refused(bill):
                        await self._cost.record(bill.owner, bill.reservation, bill.settlement)
                    return
        with _told_when_refused(bill):
            await self._cost.settle(bill.owner, bill.settlement)


@contextlib.contextmanager
def _told_when_refused(bill: Bill) -> Iterator[None]:
    try:
        yield
    except DomainError as error:
        _raise_if_away(error)
        _log.error("the cost service refused the bill of %s: %s", bill.settlement.attempt_id, error.message)


def _raise_if_away(error: DomainError) -> None:
    if error.code in AMBIGUOUS_CODES:
        raise error


def encode_bill(bill: Bill) -> bytes:
    """The bill in bytes."""
    return orjson.dumps(bill)


def decode_bill(encoded: bytes) -> Bill:
    """The bill of `encode_bill`."""
    kept = orjson.loads(encoded)
    settlement, reservation = kept["settlement"], kept["reservation"]
    if settlement["usage"] is not None:
        settlement["usage"] = TokenUsage(**settlement["usage"])
    if reservation is not None:
        reservation["tags"] = tuple((name, value) for name, value in reservation["tags"])
    return Bill(
        Owner(**kept["owner"]),
        Settlement(**settlement),
        None if reservation is None else Reservation(**reservation),
        # One that a release before this one kept has none.
        kept.get("traceparent", ""),
    )
