"""Sending a run's calls: noted in the ledger first, then in batches to the gateway, as slots and rate allow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from services.orchestrator.calls import Answer, CallId, Failure, PlannedCall
from services.orchestrator.cell_traces import CellTraces
from services.orchestrator.cells import CellQueue
from services.orchestrator.congestion import CallWindows
from services.orchestrator.context import WorkerContext
from services.orchestrator.ledger import Sent
from services.orchestrator.plan import RunPlan
from services.orchestrator.ports import NotSent
from services.orchestrator.resolving import wait_for
from services.runtime.errors import DomainError
from services.runtime.failpoints import failpoint

_ABOUT_ONE_CALL = frozenset({"INVALID_FIELD", "MESSAGE_TOO_LARGE"})
"""Refusals of a whole batch for what is wrong with one of its calls, or for their size together."""

_log = logging.getLogger(__name__)


class Dispatcher:
    """The calls of one run in one worker.

    `ended` hears how a call ended, `lost` that nobody knows, `refused` that the ledger did not let it leave.
    """

    def __init__(
        self,
        plan: RunPlan,
        queue: CellQueue,
        windows: CallWindows,
        context: WorkerContext,
        *,
        slots_free: Callable[[], int],
        ended: Callable[[CallId, Answer | Failure], None],
        lost: Callable[[CallId], None],
        refused: Callable[[int], None],
        traces: CellTraces | None = None,
    ) -> None:
        self._plan = plan
        self._queue = queue
        self._windows = windows
        self._context = context
        self._slots_free = slots_free
        self._ended = ended
        self._lost = lost
        self._refused = refused
        self._traces = traces
        # In the order in which they began, as everything that a simulation replays.
        self._streams: dict[asyncio.Task[None], None] = {}
        self._wake = asyncio.Event()
        self._stopped = False
        self._held = False
        self._gateway_failures = 0
        self._pause_until_s = 0.0

    def wake(self) -> None:
        """Slots or cells may have come free."""
        self._wake.set()

    def stop(self) -> None:
        """Dispatch nothing more; calls under way go on."""
        self._stopped = True

    def hold(self) -> None:
        """Dispatch nothing until `go_on`; calls under way go on."""
        self._held = True

    def go_on(self) -> None:
        """Dispatch again."""
        self._held = False
        self._wake.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Dispatch until cancelled; calls under way are tasks of `group`."""
        while True:
            self._wake.clear()
            batch = self._next_batch()
            if batch:
                task = group.create_task(self._run_batch(batch))
                self._streams[task] = None
                task.add_done_callback(self._streams.pop)
                continue
            self._context.changed()
            await wait_for(self._wake, self._idle_s())

    async def stop_calls(self) -> None:
        """Ask the gateway to end the calls under way; streams that do not end in time are cut."""
        ids = [str(CallId(self._plan.run_id, cell, attempt)) for cell, attempt in self._queue.calls.items()]
        if ids:
            try:
                await self._context.gateway.cancel_calls(self._plan.credential, ids)
            except DomainError as error:
                _log.warning("run %s: calls could not be cancelled: %s", self._plan.run_id, error.message)
        if self._streams:
            await asyncio.wait(self._streams, timeout=self._context.policy.cancel_grace_ms / 1_000)
        self.cut()

    def cut(self) -> None:
        """Cut every stream now; calls without an outcome are lost."""
        for task in self._streams:
            task.cancel()

    def _next_batch(self) -> list[Sent]:
        if self._stopped or self._held or not self._context.may_send():
            return []
        limit = min(self._slots_free(), self._context.policy.batch_calls_max)
        if self._gateway_failures:
            # One call finds out whether the gateway is back.
            waits = bool(self._queue.calls) or self._context.clock.monotonic_s() < self._pause_until_s
            limit = 0 if waits else min(limit, 1)
        return self._queue.take(limit, self._new_nonce)

    def _new_nonce(self) -> str:
        return f"{self._context.rng.getrandbits(96):024x}"

    def _idle_s(self) -> float | None:
        """How long nothing can be dispatched if nothing happens; None: until something does."""
        if self._stopped or self._held:
            return None
        if not self._context.may_send():
            return self._context.policy.poll_ms / 1_000
        if self._slots_free() <= 0:
            return None
        wait_s = self._queue.wait_s()
        if wait_s is None or (self._gateway_failures and self._queue.calls):
            return None
        if self._gateway_failures:
            return max(self._pause_until_s - self._context.clock.monotonic_s(), wait_s)
        return wait_s

    async def _run_batch(self, batch: list[Sent]) -> None:
        """See one batch through; calls that are left without an outcome are lost, whatever ends this."""
        ids = [CallId(self._plan.run_id, sent.cell, sent.attempt) for sent in batch]
        open_calls = {str(call_id): call_id for call_id in ids}
        try:
            failpoint("orchestrator.before_sent_commit")
            accepted = await self._context.writer.write(batch)
            failpoint("orchestrator.after_sent")
            planned = []
            for sent, call_id, ok in zip(batch, ids, accepted, strict=True):
                if ok:
                    planned.append(self._planned(call_id, sent.nonce))
                else:
                    del open_calls[str(call_id)]
                    self._windows.end(sent.cell, None)
                    self._refused(sent.cell)
            bytes_max = self._context.policy.batch_bytes_max
            if planned and self._context.may_send():
                await asyncio.gather(*(self._stream(part, open_calls) for part in cut_to_size(planned, bytes_max)))
        finally:
            for call in open_calls.values():
                self._windows.end(call.cell, None)
                self._lost(call)
            self._wake.set()

    def _planned(self, call_id: CallId, nonce: str) -> PlannedCall:
        planned = self._plan.call(call_id, nonce)
        if self._traces is None:
            return planned
        return planned._replace(traceparent=self._traces.begin(call_id, planned.plan.model))

    async def _stream(self, planned: list[PlannedCall], open_calls: dict[str, CallId]) -> None:
        """Dispatch calls and take their outcomes; those that had none stay in `open_calls`."""
        timeout_s = (self._plan.limits.timeout_ms + self._context.policy.stream_margin_ms) / 1_000
        try:
            async for outcomes in self._context.gateway.complete_batch(self._plan.credential, planned, timeout_s):
                failpoint("orchestrator.answer_received")
                self._gateway_failures = 0
                for outcome in outcomes:
                    call = open_calls.pop(outcome.call_id, None)
                    if call is not None:
                        self._windows.end(call.cell, outcome.ending)
                        self._ended(call, outcome.ending)
                if self._queue.holds_back:
                    # Its model has room before the outcome is committed.
                    self._wake.set()
        except NotSent as error:
            if error.reason in _ABOUT_ONE_CALL and len(planned) > 1:
                # One call of them is wrong; the others must not fail with it.
                middle = len(planned) // 2
                await self._stream(planned[:middle], open_calls)
                await self._stream(planned[middle:], open_calls)
                return
            self._pause()
            failure = Failure(error.reason, error.message, error.retryable, dispatched=False)
            for each in planned:
                call = open_calls.pop(each.call_id, None)
                if call is not None:
                    self._windows.end(call.cell, None)
                    self._ended(call, failure)
        except DomainError as error:
            self._pause()
            _log.warning("run %s: %d calls lost their stream: %s", self._plan.run_id, len(open_calls), error.message)

    def _pause(self) -> None:
        self._gateway_failures += 1
        delay_ms = self._context.policy.peer.delay_ms(self._gateway_failures, self._context.rng)
        self._pause_until_s = self._context.clock.monotonic_s() + delay_ms / 1_000


def cut_to_size(planned: Sequence[PlannedCall], bytes_max: int) -> list[list[PlannedCall]]:
    """Calls cut into requests with at most so many bytes of text; a call above it has a request of its own."""
    parts: list[list[PlannedCall]] = [[]]
    size = 0
    for call in planned:
        call_size = sum(len(text.encode()) for _, text in call.messages)
        if parts[-1] and size + call_size > bytes_max:
            parts.append([])
            size = 0
        parts[-1].append(call)
        size += call_size
    return parts
