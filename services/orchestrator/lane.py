"""One run in one worker: its shards, what becomes of their cells, and when they are given back.

A lane owns ranges of cells (shards) and slots (calls that may be under way). Calls leave through the dispatcher; their
outcomes are committed together; answers go on to scoring; calls whose outcome is lost and bills that are open are asked
about. A shard is given back when nothing is left to do for any of its cells.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from services.orchestrator import endings
from services.orchestrator.bills import OpenBills
from services.orchestrator.calls import Answer, CallId, Failure, ResolvedAttempt
from services.orchestrator.cell_traces import CellTraces
from services.orchestrator.cells import CellQueue, Shard
from services.orchestrator.congestion import CallWindows, ModelCalls
from services.orchestrator.context import WorkerContext
from services.orchestrator.dispatch import Dispatcher
from services.orchestrator.fairness import Holder
from services.orchestrator.ledger import (
    CellAgain,
    CellResult,
    CellScores,
    CellSettled,
    Claim,
    Exhausted,
    OpenBill,
    ShardBack,
    ShardEnd,
    ShardKey,
    ShardState,
    Slowed,
    Write,
)
from services.orchestrator.outcomes import (
    OUT_OF_MONEY,
    Again,
    AskAgain,
    Drop,
    Finish,
    Resolve,
    RetryPolicy,
    decide_failure,
    decide_resolution,
)
from services.orchestrator.plan import RunPlan
from services.orchestrator.ports import Sample
from services.orchestrator.resolving import Doubt, Doubts
from services.orchestrator.scoring import ScoringBacklog
from services.orchestrator.states import CLAIMABLE, RunStatus
from services.runtime.failpoints import failpoint

TELL_EVERY_S = 1.0
"""How often limits that were found out are put on record, beside outcomes."""

_log = logging.getLogger(__name__)


class Lane:
    """One run in one worker. `run` works until every shard is given back."""

    def __init__(self, plan: RunPlan, context: WorkerContext) -> None:
        self.plan = plan
        self._context = context
        self._retry = RetryPolicy(
            attempts_max=plan.limits.attempts_max,
            refusals_max=context.policy.refusals_max,
            retry_unknown=plan.limits.retry_unknown,
            backoff=context.policy.retry,
        )
        self._traces = CellTraces.of_run(context.tracer, plan, context.policy.traced_cells_max)
        self._windows = CallWindows(
            plan.limits.concurrency, context.clock, plan.model_index, fixed=plan.limits.fixed_concurrency
        )
        ended = [] if self._traces is None else [self._traces.end]
        self._queue = CellQueue(plan, context.clock, self._windows, *ended)
        self._dispatcher = Dispatcher(
            plan,
            self._queue,
            self._windows,
            context,
            # Calls whose outcome is lost take no slot: the gateway ends what it makes for a worker that is gone, and
            # finding out what came of them may take longer than the calls.
            slots_free=lambda: self.slots - len(self._queue.calls),
            ended=self._call_ended,
            lost=self._call_lost,
            refused=self._call_refused,
            traces=self._traces,
        )
        peers = (context.bills, context.policy, context.rng, context.clock)
        self._doubts = Doubts(plan.project_id, *peers, resolved=self._resolved)
        self._bills = OpenBills(plan.project_id, *peers, settled=self._post, given_up=self._bills_given_up)
        self._scoring = ScoringBacklog(
            plan,
            context.metrics,
            context.policy,
            context.rng,
            scored=self._scored,
            dropped=self._unscored,
            slots=lambda: self.slots,
        )
        self._answers: dict[int, Answer] = {}
        self._to_score: set[int] = set()
        # Calls for which there was no money, until that is on record.
        self._no_room: set[int] = set()
        self._outbox: list[Write] = []
        self._outbox_ready = asyncio.Event()
        self._cancel_asked = asyncio.Event()
        self._done = asyncio.Event()
        self._told: tuple[ModelCalls, ...] = ()
        self._tell_again_s = float("-inf")
        self._cancelling = False
        self._exhausting = False
        self._stop_on_record = False
        self._outdated = False
        self._paused = False
        self._draining = False
        self._exhausted = False

    # -- what the worker asks

    @property
    def finished(self) -> bool:
        """Whether every shard is given back, or left to the lane that follows; nothing more can be added."""
        return self._done.is_set() or self._outdated

    @property
    def paused(self) -> bool:
        """Whether it waits until the run is resumed, as far as it knows."""
        return self._paused

    @property
    def slots(self) -> int:
        """Calls that the lane may have under way."""
        return self._queue.slots

    @property
    def ranges(self) -> int:
        """Ranges of cells that it works on."""
        return len(self._queue.shards)

    @property
    def calls_open(self) -> int:
        """Calls under way, and calls whose outcome is not known yet."""
        return len(self._queue.calls) + len(self._doubts)

    def holder(self) -> Holder:
        """What the run has here, for whoever shares slots out."""
        limits = self.plan.limits
        wants = not self._stopped and self._queue.waiting > 0 and self.slots < limits.concurrency
        return Holder(self.plan.run_id, self.plan.project_id, self.slots, limits.priority, wants)

    @property
    def wants_cells(self) -> bool:
        """Whether the lane will soon have nothing left to dispatch."""
        return (
            not (self._exhausted or self._stopped)
            and self._queue.waiting < self.slots
            and len(self._queue.shards) < self._context.policy.shards_per_run_max
        )

    def holds(self, key: ShardKey) -> bool:
        """Whether the lane works on this range under this claim."""
        shard = self._queue.shards.get(key.first_cell)
        return shard is not None and shard.key == key

    @property
    def _stopped(self) -> bool:
        """Whether no further call is made, for now or for ever."""
        return self._stopping or self._paused or self._draining

    @property
    def _stopping(self) -> bool:
        """Whether the run's cells end as they are."""
        return self._cancelling or self._exhausting

    @property
    def slotless_shard(self) -> ShardKey | None:
        """A shard to ask slots for, when the lane has cells and not a single slot."""
        if self.slots or self._stopped or not self._queue.waiting:
            return None
        return next((shard.key for shard in self._queue.shards.values()), None)

    # -- what the worker tells

    def grant(self, key: ShardKey, slots: int) -> None:
        """The ledger has given slots to a shard."""
        if self.holds(key):
            self._queue.shards[key.first_cell].slots += slots
            self._dispatcher.wake()

    async def add(self, claim: Claim) -> None:
        """Take a claimed range on, with what is in the ledger about it."""
        # Nothing can be said of inherited cells until the ledger has told about them.
        shard = Shard(claim.shard, claim.cells, claim.slots, suspended=claim.inherited)
        self._queue.add(shard)
        if claim.inherited:
            await self._adopt(shard)
        else:
            self._queue.push(shard, shard.range)
            if self._stopping:
                self._queue.drop_waiting()
        self._exhausted = self._exhausted or shard.range.stop >= self.plan.cells
        self._end_finished_shards()
        self._dispatcher.wake()

    async def check_held(self, held: frozenset[ShardKey]) -> None:
        """Let go of shards that are not held any more, and look again at those about which the ledger said no."""
        for shard in list(self._queue.shards.values()):
            if shard.ending:
                # It may be given back already; the answer says so, and where its slots went.
                continue
            if shard.key not in held:
                _log.warning("run %s: cells from %d on were taken over", self.plan.run_id, shard.key.first_cell)
                self._queue.remove(shard)
            elif shard.suspended:
                await self._adopt(shard)
        self._end_finished_shards()
        self._dispatcher.wake()

    def follow(self, status: RunStatus) -> None:
        """Do what the run's state asks for."""
        if status is RunStatus.CANCELLING:
            self._stop_on_record = True
            self.cancel()
        elif status is RunStatus.EXHAUSTING:
            self._stop_on_record = True
            self._wind_down()
        elif status is RunStatus.PAUSED:
            self._pause()
        elif self._paused and status in CLAIMABLE:
            self._paused = False
            self._dispatcher.go_on()
        elif self._stop_on_record and status in CLAIMABLE:
            self._let_go()

    def _let_go(self) -> None:
        """The run was retried after it had stopped: leave every range to a new lane, which reads where each stands."""
        self._outdated = True
        for shard in list(self._queue.shards.values()):
            self._queue.remove(shard)
        self._end_finished_shards()

    def _wind_down(self) -> None:
        """Make no further call; those under way end as they do, and are scored."""
        if not self._stopping:
            self._exhausting = True
            self._dispatcher.stop()
            self._queue.drop_waiting()
            self._finish_what_is_done()

    def _pause(self) -> None:
        """Make no further call, and give shards back as their calls end."""
        if not (self._paused or self._stopping):
            self._paused = True
            self._dispatcher.hold()
            # The sweep asks for what is not known of them: a run may be paused for days.
            self._bills.close_all()
            self._finish_what_is_done()

    def cancel(self) -> None:
        """The run has been told to stop: dispatch nothing more, end calls under way, take their outcomes."""
        if self._cancelling:
            return
        self._cancelling = True
        self._dispatcher.stop()
        self._scoring.give_up()
        self._queue.drop_waiting()
        self._bills.close_all()
        self._cancel_asked.set()
        self._finish_what_is_done()

    def _finish_what_is_done(self) -> None:
        for shard in self._queue.shards.values():
            for cell in list(shard.open):
                self._finish_if_done(cell)
        self._end_finished_shards()

    def drain(self) -> None:
        """The worker stops: dispatch nothing more."""
        self._draining = True
        self._dispatcher.stop()

    async def run(self) -> None:
        """Work until every shard is given back. Raises what broke, as an ExceptionGroup."""
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self._commit_outcomes()),
                group.create_task(self._dispatcher.run(group)),
                group.create_task(self._doubts.run()),
                group.create_task(self._bills.run()),
                group.create_task(self._stop_calls_on_cancel()),
                *(group.create_task(self._scoring.run()) for _ in range(self._context.policy.scoring_concurrency)),
            ]
            await self._done.wait()
            for task in loops:
                task.cancel()
            self._dispatcher.cut()

    async def _stop_calls_on_cancel(self) -> None:
        await self._cancel_asked.wait()
        await self._dispatcher.stop_calls()

    # -- how calls end

    def _call_ended(self, call: CallId, ending: Answer | Failure) -> None:
        model = self.plan.model_index(call.cell)
        history = self._queue.history(call.cell)
        if self._traces is not None:
            self._traces.told(call, "" if isinstance(ending, Answer) else ending.reason)
        if isinstance(ending, Answer):
            self._answers[call.cell] = ending
            self._post(endings.answered(call, model, history.made, ending))
            return
        if ending.reason == OUT_OF_MONEY and self.plan.limits.max_cost_nano_usd and not self._stopping:
            ending = self._without_room(call.cell, ending)
        decision = decide_failure(ending, history, self._retry, self._context.rng, cancelling=self._stopping)
        match decision:
            case Finish(status):
                self._post(endings.failed(call, model, history.made, status, ending))
            case Again(delay_ms, outcome):
                when_us = self._context.clock.now_us() + delay_ms * 1_000
                self._post(
                    endings.again(
                        call, outcome, ending.reason, not_before_us=when_us, usage=ending.usage, cost=ending.cost
                    )
                )
            case Drop():
                self._post(endings.again(call, "refused", ending.reason, not_before_us=None))
            case Resolve():
                self._call_lost(call)

    def _without_room(self, cell: int, refusal: Failure) -> Failure:
        """A refusal by a budget: what is held for other calls may come free; without any the run's money is used up."""
        self._no_room.add(cell)
        if self._doubts or not self._no_room.issuperset(self._queue.calls):
            return refusal._replace(reason="RATE_LIMITED", retryable=True)
        self._post(Exhausted(self.plan.run_id))
        self._wind_down()
        return refusal

    def _call_lost(self, call: CallId) -> None:
        self._queue.calls.pop(call.cell, None)
        self._doubts.add(call)

    def _call_refused(self, cell: int) -> None:
        self._queue.calls.pop(cell, None)
        self._suspect(self._queue.shard_of(cell))

    def _suspect(self, shard: Shard | None) -> None:
        if shard is not None:
            shard.suspended = True
        self._context.suspects()

    def _resolved(self, doubt: Doubt, attempt: ResolvedAttempt) -> bool:
        """Take the cost service's word on a lost call; False: ask again."""
        call, history = doubt.call_id, self._queue.history(doubt.call_id.cell)
        resolution = decide_resolution(
            attempt,
            history,
            self._retry,
            self._context.rng,
            waited_ms=round((self._context.clock.monotonic_s() - doubt.since_s) * 1_000),
            unknown_after_ms=self._context.policy.unknown_after_ms,
            cancelling=self._stopping,
        )
        match resolution:
            case AskAgain():
                return False
            case Finish(status):
                self._post(endings.lost(call, self.plan.model_index(call.cell), history.made, status, attempt))
            case Again(delay_ms, outcome):
                when_us = self._context.clock.now_us() + delay_ms * 1_000
                self._post(
                    endings.again(call, outcome, "", not_before_us=when_us, usage=attempt.usage, cost=attempt.cost)
                )
            case Drop():
                self._post(endings.again(call, "unsent", "", not_before_us=None))
        # The call counts as under way until its outcome is committed.
        self._queue.calls[call.cell] = call.attempt
        return True

    # -- what is committed

    def _post(self, write: Write) -> None:
        self._outbox.append(write)
        self._outbox_ready.set()

    async def _commit_outcomes(self) -> None:
        """Commit what has gathered, together, and go on with what follows from it."""
        while True:
            await self._outbox_ready.wait()
            self._outbox_ready.clear()
            self._tell_limits()
            writes, self._outbox = self._outbox, []
            accepted = await self._context.writer.write(writes)
            failpoint("orchestrator.result_committed")
            for write, ok in zip(writes, accepted, strict=True):
                self._committed(write, ok=ok)
            self._end_finished_shards()
            self._dispatcher.wake()

    def _tell_limits(self) -> None:
        """Put on record what models take at once, when it has changed and not all the time."""
        found, now_s = self._windows.found(), self._context.clock.monotonic_s()
        if found != self._told and now_s >= self._tell_again_s:
            self._told, self._tell_again_s = found, now_s + TELL_EVERY_S
            self._outbox.append(Slowed(self.plan.run_id, found))

    def _committed(self, write: Write, *, ok: bool) -> None:
        match write:
            case CellResult():
                self._result_committed(write)
            case CellAgain():
                self._again_committed(write)
            case CellSettled():
                self._bills.close(write.cell, write.attempt)
                self._finish_if_done(write.cell)
            case ShardEnd() | ShardBack():
                self._shard_gone(write, ok=ok)
            case Exhausted():
                self._stop_on_record = True

    def _result_committed(self, result: CellResult) -> None:
        self._queue.calls.pop(result.cell, None)
        answer = self._answers.pop(result.cell, None)
        if answer is not None:
            self._to_score.add(result.cell)
            traceparent = "" if self._traces is None else self._traces.context(result.cell)
            self._scoring.add(result.cell, answer.text, answer.finish_reason, traceparent)
        if not result.settled:
            self._wait_for_bill(endings.open_bill(result, self._context.clock.now_us()))
        self._finish_if_done(result.cell)

    def _again_committed(self, write: CellAgain) -> None:
        self._queue.calls.pop(write.cell, None)
        self._no_room.discard(write.cell)
        # The ledger may have been read between the commit and now, and have told of this call.
        if write.attempt >= self._queue.history(write.cell).next_attempt:
            self._queue.count(write.cell, write.outcome, write.attempt)
        if write.not_before_us is None or self._stopping:
            self._queue.finish(write.cell)
            return
        if not write.settled:
            self._wait_for_bill(endings.open_bill(write, self._context.clock.now_us()))
        delay_us = max(0, write.not_before_us - self._context.clock.now_us())
        self._queue.push_later(write.cell, delay_us / 1_000_000)

    def _wait_for_bill(self, bill: OpenBill) -> None:
        """Keep the cell until the bill is settled; one that can only be read, or of a cancelled run, is swept."""
        if bill.outcome_known and not (self._cancelling or self._paused):
            self._bills.add(bill)

    def _bills_given_up(self, cells: Iterable[int]) -> None:
        for cell in cells:
            self._finish_if_done(cell)
        self._end_finished_shards()

    def _finish_if_done(self, cell: int) -> None:
        if not (self._is_under_way(cell) or self._queue.is_busy(cell)):
            self._queue.finish(cell)

    def _is_under_way(self, cell: int) -> bool:
        """Whether something is happening with a cell: not only that it waits for its call."""
        return cell in self._queue.calls or cell in self._to_score or cell in self._bills or cell in self._doubts

    async def _scored(self, scores: Sequence[CellScores]) -> None:
        await self._context.writer.write(scores)
        self._leave_scoring(write.cell for write in scores)

    def _unscored(self, samples: Sequence[Sample]) -> None:
        self._leave_scoring(sample.cell for sample in samples)

    def _leave_scoring(self, cells: Iterable[int]) -> None:
        for cell in cells:
            self._to_score.discard(cell)
            self._finish_if_done(cell)
        self._end_finished_shards()

    # -- shards

    async def _adopt(self, shard: Shard) -> None:
        """Go on where the ledger says that a range stands; what this lane has in hand already stays as it is."""
        ledger, run_id = self._context.ledger, self.plan.run_id
        state = await ledger.load_shard(run_id, shard.key.first_cell, shard.cells)
        self._queue.know(state.histories)
        for cell in shard.range:
            if cell not in state.finished or self._queue.is_busy(cell):
                self._queue.open_cell(shard, cell)
        for call in state.in_flight:
            if not self._queue.is_busy(call.cell) and call.cell not in self._doubts:
                self._queue.open_cell(shard, call.cell)
                self._doubts.add(CallId(run_id, call.cell, call.attempt))
        self._adopt_waiting(shard, state)
        for bill in state.open_bills:
            self._queue.open_cell(shard, bill.cell)
            self._wait_for_bill(bill)
        unscored = [cell for cell in state.unscored if cell not in self._to_score]
        if unscored and not self._cancelling:
            for stored in await ledger.stored_answers(run_id, unscored):
                self._queue.open_cell(shard, stored.cell)
                self._to_score.add(stored.cell)
                text = self._context.answer_text(stored.body)
                self._scoring.add(stored.cell, text, stored.finish_reason)
        if self._stopping:
            self._queue.drop_waiting()
        for cell in list(shard.open):
            self._finish_if_done(cell)
        shard.suspended = False

    def _adopt_waiting(self, shard: Shard, state: ShardState) -> None:
        now_us = self._context.clock.now_us()
        due_us = {retry.cell: retry.not_before_us for retry in state.retries}
        fresh = []
        for cell in shard.range:
            if cell in state.finished or self._queue.is_busy(cell) or cell in self._doubts:
                continue
            if cell in due_us:
                self._queue.push_later(cell, max(0, due_us[cell] - now_us) / 1_000_000)
            else:
                fresh.append(cell)
        self._queue.push(shard, fresh)

    def _end_finished_shards(self) -> None:
        for shard in self._queue.shards.values():
            if shard.ending or shard.suspended:
                continue
            if not shard.open:
                shard.ending = True
                self._post(self._end_of(shard))
            elif self._paused and not any(map(self._is_under_way, shard.open)):
                shard.ending = True
                self._post(ShardBack(shard.key))
        if not (self._queue.shards or self.calls_open or self._outbox or self._to_score):
            self._done.set()

    def _end_of(self, ending: Shard) -> ShardEnd:
        others = (shard for shard in self._queue.shards.values() if shard is not ending and not shard.ending)
        heir = next((shard.key.first_cell for shard in others), None)
        back = self._context.to_give_back(self.plan.run_id, ending.slots) if ending.slots and heir is not None else 0
        return ShardEnd(ending.key, heir, back)

    def _shard_gone(self, end: ShardEnd | ShardBack, *, ok: bool) -> None:
        shard = self._queue.shards.get(end.shard.first_cell)
        if shard is None or shard.key != end.shard:
            return
        shard.ending = False
        if not ok:
            self._suspect(shard)
            return
        self._queue.remove(shard)
        if isinstance(end, ShardEnd) and end.heir is not None and end.heir in self._queue.shards:
            self._queue.shards[end.heir].slots += max(0, shard.slots - end.back)
        self._context.changed()
