"""Automations: runs of an agent in a browser, and those that were started to be asked about later."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from services.gateway.attempts import CallOutcome
from services.gateway.calls import Owner
from services.gateway.chunks import AutomationResult, AutomationUpdate, Event, Started
from services.gateway.failures import refused

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

    async def emit(self, attempt_id: str, offset_us: int, events: list[Event]) -> None:
        """See chunks.Emit: keeps the provider's id and the result, passes updates on."""
        for event in events:
            if isinstance(event, Started) and event.provider_request_id:
                self.run_id = event.provider_request_id
                self.known.set()
            elif isinstance(event, AutomationResult):
                self.result = event
            if isinstance(event, AutomationUpdate) and self.watch is not None:
                await self.watch(event)


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
