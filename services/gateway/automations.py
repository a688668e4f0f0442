"""Automations: runs of an agent in a browser, and those that were started to be asked about later."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import orjson

from services.gateway.attempts import CallOutcome
from services.gateway.cache import CacheStore
from services.gateway.calls import Owner
from services.gateway.chunks import AutomationResult, AutomationUpdate, Read, Started
from services.gateway.failures import refused

ALIVE_S = 15.0
"""A replica that has said nothing about an automation for so long does not follow it any more."""

Watch = Callable[[AutomationUpdate], Awaitable[None]]


@dataclass(slots=True)
class AutomationRun:
    """What is known of one automation; `outcome` is None while it runs."""

    call_id: str
    run_id: str = ""
    result: AutomationResult | None = None
    outcome: CallOutcome | None = None
    task: asyncio.Task[None] | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)
    watch: Watch | None = None

    async def emit(self, read: Read) -> None:
        """See chunks.Emit: keeps the provider's id and the result, passes updates on."""
        for event in read.events:
            if isinstance(event, Started) and event.provider_request_id:
                self.run_id = event.provider_request_id
                self.known.set()
            elif isinstance(event, AutomationResult):
                self.result = event
            if isinstance(event, AutomationUpdate) and self.watch is not None:
                await self.watch(event)


@dataclass(frozen=True, slots=True)
class AutomationRecord:
    """A started automation as all replicas see it.

    Attributes:
        request: what was asked for, as the contract encodes it. report: how it stands, likewise.
        nonce: of its hold, so that another replica that follows it holds nothing twice.
        deadline_us: when it is given up, UTC microseconds.
        ended: whether `report` is its end.
    """

    request: bytes
    report: bytes
    nonce: str
    deadline_us: int
    ended: bool


class SharedAutomations:
    """Records of started automations, where all replicas find them: in Redis, where one is set.

    The replica that follows one says so every few seconds. A record of a running one that nobody speaks for is of a
    replica that was lost: whoever is asked about it may follow it. Two that do so at once do no harm, because a run is
    settled under one id.
    """

    def __init__(self, store: CacheStore, kept_s: float) -> None:
        self._store = store
        self._kept_s = kept_s

    async def put(self, owner: Owner, call_id: str, record: AutomationRecord) -> None:
        """Keep a record in place of the one before."""
        fields = [record.request, record.report]
        plain = [*(field.hex() for field in fields), record.nonce, record.deadline_us, record.ended]
        await self._store.put(_key(owner, call_id), orjson.dumps(plain), self._kept_s)

    async def get(self, owner: Owner, call_id: str) -> AutomationRecord | None:
        """The record, where there is one."""
        kept = await self._store.get(_key(owner, call_id))
        if kept is None:
            return None
        request, report, nonce, deadline_us, ended = orjson.loads(kept)
        return AutomationRecord(bytes.fromhex(request), bytes.fromhex(report), nonce, deadline_us, ended)

    async def speak_for(self, owner: Owner, call_id: str) -> None:
        """This replica follows it, for the next `ALIVE_S` seconds."""
        await self._store.put(_key(owner, call_id) + ":alive", b"1", ALIVE_S)

    async def is_spoken_for(self, owner: Owner, call_id: str) -> bool:
        """Whether a replica follows it."""
        return await self._store.get(_key(owner, call_id) + ":alive") is not None

    async def want_cancel(self, owner: Owner, call_id: str, wish: str) -> None:
        """Whoever runs it is to cancel it, and to grant this wish; a hint under `cancel_topic` makes that sooner."""
        await self._store.put(_key(owner, call_id) + ":cancel", wish.encode(), ALIVE_S)

    async def wanted_cancel(self, owner: Owner, call_id: str) -> str:
        """The wish that it be cancelled; empty where nobody has one."""
        wish = await self._store.get(_key(owner, call_id) + ":cancel")
        return "" if wish is None else wish.decode()

    async def grant_cancel(self, wish: str) -> None:
        """It is under way, and will be cancelled; a hint under `granted_topic` tells that sooner."""
        await self._store.put(_granted_key(wish), b"1", ALIVE_S)

    async def is_cancel_granted(self, wish: str) -> bool:
        """Whether somebody who runs it has granted the wish."""
        return await self._store.get(_granted_key(wish)) is not None


def granted_topic(wish: str) -> str:
    """Where a hint means: look whether this wish was granted."""
    return f"automation-cancel-granted:{wish}"


def _granted_key(wish: str) -> str:
    return f"automation-cancel-granted:{wish}"


def cancel_topic(owner: Owner, call_id: str) -> str:
    """Where a hint means: look whether this automation is to be cancelled."""
    return f"automation-cancel:{owner.project_id}:{call_id}"


def _key(owner: Owner, call_id: str) -> str:
    return f"automation:{owner.project_id}:{call_id}"


class StartedAutomations:
    """Automations that run on by themselves, in this process, until they end; the newest that have ended are kept."""

    def __init__(self, max_kept: int) -> None:
        self._max_kept = max_kept
        self._runs: OrderedDict[tuple[str, str], AutomationRun] = OrderedDict()

    def add(self, owner: Owner, run: AutomationRun) -> None:
        """Keep a run. Raises CallFailed(OVERLOADED), not dispatched, where every kept one is still running."""
        key = (owner.project_id, run.call_id)
        if key in self._runs:
            message = f"automation {run.call_id!r} was started already; use another call id"
            raise refused("CALL_ALREADY_DISPATCHED", message, field="automation.call_id")
        while len(self._runs) >= self._max_kept:
            ended = next((old for old, kept in self._runs.items() if kept.outcome is not None), None)
            if ended is None:
                raise refused("OVERLOADED", f"{self._max_kept} automations are running, which is the limit; try again")
            del self._runs[ended]
        self._runs[key] = run

    def get(self, owner: Owner, call_id: str) -> AutomationRun | None:
        """The project's run with this id, where it is known here."""
        return self._runs.get((owner.project_id, call_id))

    def forget(self, owner: Owner, call_id: str) -> None:
        """Drop a run that never came to be."""
        self._runs.pop((owner.project_id, call_id), None)

    async def close(self) -> None:
        """Stop what still runs; each is cancelled at its provider and settled."""
        tasks = [run.task for run in self._runs.values() if run.task is not None and not run.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
