"""A worker: keeps its lease, claims cells, runs a lane for each run that it has cells of, and stops in good order.

Any number of workers share a ledger. Each has a name that no other incarnation bears and holds a lock that only its
death releases, so that others take over at once what a killed worker had; its lease covers the case of one that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from services.orchestrator.bills import BillSweep
from services.orchestrator.context import WorkerContext
from services.orchestrator.fairness import to_give_back
from services.orchestrator.lane import Lane
from services.orchestrator.ledger import Claim, ClaimRequest
from services.orchestrator.plan import RunPlan
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.ports import Bills, Gateway, Identity, Ledger, Metrics
from services.orchestrator.resolving import wait_for
from services.orchestrator.states import ENDED, RunStatus
from services.orchestrator.topics import WORK_TOPIC
from services.orchestrator.writer import LedgerWriter
from services.runtime import telemetry
from services.runtime.clock import Clock
from services.runtime.errors import DomainError
from services.runtime.hints import Hints
from services.runtime.ids import new_id
from services.runtime.liveness import Liveness

if TYPE_CHECKING:
    from services.runtime.spans import Tracer

_TAKEOVERS_MAX = 64
_PURGE_ROWS = 5_000
_PULSE_MIN_S = 0.2
"""Shortest time between two heartbeats, however often somebody doubts what the worker holds."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """What a worker works with."""

    ledger: Ledger
    gateway: Gateway
    metrics: Metrics
    bills: Bills
    identity: Identity
    hints: Hints
    liveness: Liveness
    clock: Clock
    rng: random.Random
    answer_text: Callable[[bytes], str]
    """The visible text of an encoded answer, for scoring after a takeover."""
    name_worker: Callable[[], str] = field(default_factory=lambda: partial(new_id, "wrk"))
    """A name that no worker has had. A simulation that is to be replayed gives its own."""
    tracer: Tracer | None = None


class Worker:
    """Works until `stop`; a new incarnation follows one that lost its proof of life."""

    def __init__(self, ports: WorkerPorts, policy: WorkerPolicy) -> None:
        self._ports = ports
        self._policy = policy
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop`, then hand everything back."""
        failures = 0
        while not self._stopping.is_set():
            worker_id = self._ports.name_worker()
            try:
                async with self._ports.liveness.hold(worker_id) as hold:
                    await Incarnation(worker_id, self._ports, self._policy).run(self._stopping, hold.lost)
            except DomainError as error:
                _log.warning("the worker cannot work, trying again: %s", error.message)
            except Exception:  # noqa: BLE001 (any fault is logged; without its worker no run would go on)
                _log.exception("the worker broke and begins anew")
            # A worker that ends without having been told to will be followed by another, but not in a hurry.
            failures += 1
            await wait_for(self._stopping, self._policy.peer.delay_ms(failures, self._ports.rng) / 1_000)

    def stop(self) -> None:
        """Dispatch nothing more, wait for calls under way for a while, and end `run`."""
        self._stopping.set()


class Incarnation:
    """One life of a worker under one name."""

    def __init__(self, worker_id: str, ports: WorkerPorts, policy: WorkerPolicy) -> None:
        self._id = worker_id
        self._ports = ports
        self._policy = policy
        self._lanes: dict[str, Lane] = {}
        self._tasks: dict[asyncio.Task[None], Lane] = {}
        self._barren: dict[str, float] = {}
        self._may_send_until_s = float("-inf")
        self._wake = asyncio.Event()
        self._pulse_now = asyncio.Event()
        # Between a claim and its lane the worker holds cells that no lane knows: nobody looks meanwhile.
        self._claiming = asyncio.Lock()
        self._inherited = telemetry.counter("ranges_taken_over")
        self._dead = telemetry.counter("workers_found_dead")
        self._look_for_new = True
        self._found_none_with = 0
        self._draining = False
        self._background: set[asyncio.Future[None]] = set()
        writer = LedgerWriter(ports.ledger, worker_id, policy.peer, ports.rng, ports.hints)
        self._context = WorkerContext(
            ledger=ports.ledger,
            writer=writer,
            gateway=ports.gateway,
            metrics=ports.metrics,
            bills=ports.bills,
            policy=policy,
            clock=ports.clock,
            rng=ports.rng,
            answer_text=ports.answer_text,
            may_send=lambda: ports.clock.monotonic_s() < self._may_send_until_s,
            to_give_back=self._to_give_back,
            changed=self._wake.set,
            suspects=self._pulse_now.set,
            tracer=ports.tracer,
        )

    async def run(self, stopping: asyncio.Event, lost: asyncio.Event) -> None:
        """Work until told to stop or until the proof of life is gone.

        Raises DomainError when the ledger is away at the start.
        """
        with telemetry.gauge("ranges_held", self._ranges_held, worker=self._id):
            await self._work(stopping, lost)

    def _ranges_held(self) -> float:
        return sum(lane.ranges for lane in self._lanes.values())

    async def _work(self, stopping: asyncio.Event, lost: asyncio.Event) -> None:
        await self._pulse()
        # For what was started before there was a worker to hear of it.
        self._wake.set()
        loops = [
            asyncio.create_task(self._forever(loop), name=f"worker-{loop.__name__}")
            for loop in (self._keep_lease, self._claim, self._listen, self._keep_house, self._sweep_bills)
        ]
        ends = [asyncio.create_task(event.wait()) for event in (stopping, lost)]
        try:
            await asyncio.wait([*loops, *ends], return_when=asyncio.FIRST_COMPLETED)
            for broken in (loop for loop in loops if loop.done()):
                _log.error("the worker broke and begins anew", exc_info=broken.exception())
            if not lost.is_set():
                await self._drain()
        finally:
            await _cancelled([*loops, *ends, *self._tasks, *self._background])
            await self._context.writer.close()
            with contextlib.suppress(DomainError):
                # What cannot be handed back is taken over: this worker's lock is about to be released.
                await self._ports.ledger.release(self._id)

    # -- lease

    async def _keep_lease(self) -> None:
        while True:
            await wait_for(self._pulse_now, self._policy.lease_ms / 3_000)
            self._pulse_now.clear()
            await self._pulse()
            await asyncio.sleep(_PULSE_MIN_S)

    async def _pulse(self) -> None:
        """Renew the lease, let go of what is lost, pick up what fell, notice cancels, and bury the dead."""
        async with self._claiming:
            # Counted from before the renewal leaves: the ledger's own count starts later.
            asked_s = self._ports.clock.monotonic_s()
            pulse = await self._ports.ledger.heartbeat(self._id, self._policy.lease_ms)
            self._may_send_until_s = asked_s + self._policy.lease_ms / 1_000
            held = frozenset(claim.shard for claim in pulse.held)
            for run_id, lane in list(self._lanes.items()):
                await lane.check_held(held)
                if run_id in pulse.statuses:
                    await self._tell(lane, pulse.statuses[run_id])
            for claim in pulse.held:
                await self._pick_up(claim)
        await self._forget_dead_workers()

    async def _pick_up(self, claim: Claim) -> None:
        """Go on with a range that the worker holds and no lane works on: its lane broke, or never came to be."""
        lane = self._lanes.get(claim.shard.run_id)
        if not self._draining and (lane is None or lane.finished or not lane.holds(claim.shard)):
            await self._take_on(claim)

    async def _forget_dead_workers(self) -> None:
        others = await self._ports.ledger.other_workers(self._id)
        dead = [other for other in others if await self._ports.liveness.is_dead(other)]
        if dead:
            self._dead.add(len(dead))
            _log.info("taking over from %d workers that are gone", len(dead))
            await self._ports.ledger.forget_workers(dead)
            self._look_for_new = True
            self._wake.set()

    # -- claims

    async def _listen(self) -> None:
        """Look for work, and at what is held, when somebody hints that runs were started or cancelled."""
        with self._ports.hints.subscribe(WORK_TOPIC) as subscription:
            while True:
                hinted = await subscription.wait(self._policy.poll_ms / 1_000)
                self._look_for_new = True
                self._wake.set()
                if hinted:
                    self._pulse_now.set()

    async def _claim(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while await self._claim_once():
                pass

    async def _claim_once(self) -> bool:
        """Claim what can be taken on; True while there may be more."""
        if self._draining:
            return False
        now_s = self._ports.clock.monotonic_s()
        extend = tuple(
            run_id
            for run_id, lane in self._lanes.items()
            if lane.wants_cells and self._barren.get(run_id, now_s) <= now_s
        )
        free = max(0, self._policy.slots_max - self._slots())
        if free > self._found_none_with:
            # Slots were given back for others.
            self._look_for_new = True
        look_for_new = self._look_for_new
        if not extend and not look_for_new:
            return False
        # Whatever is hinted at from here on may come too late for this claim: it is looked for again.
        self._look_for_new = False
        try:
            async with self._claiming:
                claims = await self._ports.ledger.claim(self._request(extend, free if look_for_new else 0))
                self._inherited.add(sum(claim.inherited for claim in claims))
                for claim in claims:
                    await self._take_on(claim)
                await self._ask_for_slots()
        except BaseException:
            self._look_for_new = True
            raise
        found = {claim.shard.run_id for claim in claims}
        for run_id in extend:
            if run_id not in found:
                self._barren[run_id] = now_s + self._policy.poll_ms / 1_000
        if any(claim.slots or claim.inherited for claim in claims):
            self._look_for_new = self._look_for_new or look_for_new
        else:
            self._found_none_with = free
        return bool(claims)

    def _request(self, extend: tuple[str, ...], free: int) -> ClaimRequest:
        """What to ask for with so many slots that no run has."""
        policy = self._policy
        return ClaimRequest(
            self._id,
            max(0, free - policy.slots_reserved),
            extend,
            policy.shard_cells,
            policy.grant_max,
            _TAKEOVERS_MAX,
            min(free, policy.slots_reserved),
        )

    def _to_give_back(self, run_id: str, ending: int) -> int:
        others = [lane.holder() for lane in self._lanes.values() if lane.plan.run_id != run_id]
        lane = self._lanes.get(run_id)
        if lane is None:
            return 0
        free = self._policy.slots_max - self._policy.slots_reserved - self._slots()
        return to_give_back(ending, lane.holder(), others, free)

    async def _ask_for_slots(self) -> None:
        for lane in list(self._lanes.values()):
            shard = lane.slotless_shard
            if shard is not None:
                lane.grant(shard, await self._ports.ledger.grant_slots(shard, self._id, self._policy.grant_max))

    async def _take_on(self, claim: Claim) -> None:
        lane = self._lanes.get(claim.shard.run_id)
        if lane is None or lane.finished:
            record = await self._ports.ledger.load_run(claim.shard.run_id)
            if record is None:
                return
            lane = Lane(RunPlan(record.run, record.encoded_spec), self._context)
            await lane.add(claim)
            lane.follow(record.run.status)
            self._lanes[claim.shard.run_id] = lane
            task = asyncio.create_task(lane.run(), name=f"lane-{claim.shard.run_id}")
            self._tasks[task] = lane
            task.add_done_callback(self._lane_ended)
        else:
            if lane.paused:
                # The run may have been resumed: a lane that does not know gives back what it gets, again and again.
                await self._tell(lane, RunStatus.RUNNING)
            await lane.add(claim)

    async def _tell(self, lane: Lane, status: RunStatus) -> None:
        """Tell a lane where its run stands. One that goes on after a pause acts for whoever resumed the run."""
        if lane.paused and status is not RunStatus.PAUSED:
            record = await self._ports.ledger.load_run(lane.plan.run_id)
            if record is None:
                return
            lane.plan.act_under(record.run.delegation_id)
            status = record.run.status
        lane.follow(status)

    def _slots(self) -> int:
        return sum(lane.slots for lane in self._lanes.values())

    # -- ends

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        lane = self._tasks.pop(task)
        run_id = lane.plan.run_id
        if self._lanes.get(run_id) is lane:
            del self._lanes[run_id]
        self._barren.pop(run_id, None)
        self._look_for_new = True
        self._wake.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._in_background(self._revoke_delegation(lane))
        else:
            _log.error("run %s: the lane broke and is begun again", run_id, exc_info=error)
            # Not at once: what broke a lane may break the next one too.
            task.get_loop().call_later(self._policy.poll_ms / 1_000, self._pulse_now.set)

    def _in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _revoke_delegation(self, lane: Lane) -> None:
        """End the right to act for the user when the run has ended. If this fails it ends by itself, later."""
        with contextlib.suppress(DomainError):
            record = await self._ports.ledger.load_run(lane.plan.run_id)
            if record is not None and record.run.status in ENDED and record.run.delegation_id:
                await self._ports.identity.revoke_delegation(record.run.project_id, record.run.delegation_id)

    async def _drain(self) -> None:
        self._draining = True
        for lane in self._lanes.values():
            lane.drain()
        deadline_s = self._ports.clock.monotonic_s() + self._policy.drain_ms / 1_000
        while any(lane.calls_open for lane in self._lanes.values()):
            left_s = deadline_s - self._ports.clock.monotonic_s()
            if left_s <= 0:
                break
            self._wake.clear()
            await wait_for(self._wake, left_s)

    async def _keep_house(self) -> None:
        """Remove the rows of deleted runs, batch by batch."""
        while True:
            more = await self._ports.ledger.purge_some(_PURGE_ROWS)
            await asyncio.sleep(0 if more else self._policy.lease_ms / 1_000)

    async def _sweep_bills(self) -> None:
        """Ask for costs that became known after their results, also of runs that have ended."""
        sweep = BillSweep(self._ports.ledger, self._context.writer, self._ports.bills, self._policy)
        while True:
            more = await sweep.sweep()
            await asyncio.sleep(0 if more else self._policy.bill_sweep_ms / 1_000)

    async def _forever(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop again and again, while the ledger is away too."""
        failures = 0
        while True:
            try:
                await loop()
            except DomainError as error:
                failures += 1
                _log.warning("the worker waits for its ledger: %s", error.message)
                await asyncio.sleep(self._policy.peer.delay_ms(failures, self._ports.rng) / 1_000)
                self._wake.set()


async def _cancelled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
