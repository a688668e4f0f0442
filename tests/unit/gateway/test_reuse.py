"""Single-flight and the cache in the pipeline, over a scripted provider and a ledger in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from services.gateway.attempts import CallOutcome, Completion, FailedCall
from services.gateway.calls import Caching, Call, Owner, ProviderRequest, TextPart
from services.gateway.chunks import Event, Finished, FinishReason, Read, Started, TextDelta, UsageSoFar
from services.gateway.failures import CallFailed, ProviderFault, classify
from services.gateway.pipeline import Pipeline
from services.gateway.usage import TokenUsage
from services.runtime.errors import error_of_code
from tests.support.gateway import ANSWER, OWNER, InMemoryLedger, ScriptedProvider, call, pipeline

LATE_MS = 60_000


class StepByStep:
    """A provider that goes on when it is told to; `ends` scripts an answer to each call, ANSWER where there is none."""

    def __init__(self, *ends: Sequence[Sequence[Event] | Exception]) -> None:
        self.ends = list(ends)
        self.calls = 0
        self.closed = 0
        self.steps = asyncio.Semaphore(0)
        self.waits = asyncio.Semaphore(0)

    async def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        self.calls += 1
        script: Sequence[Sequence[Event] | Exception] = self.ends.pop(0) if self.ends else ANSWER
        try:
            for step in script:
                self.waits.release()
                await self.steps.acquire()
                if isinstance(step, Exception):
                    raise step
                yield list(step)
        finally:
            self.closed += 1

    def go(self, steps: int = 10) -> None:
        for _ in range(steps):
            self.steps.release()

    async def close(self) -> None:
        pass


class Caller:
    """One that makes a call and keeps what it is given."""

    def __init__(self, made: Pipeline, number: int = 0, *, streams: bool = True, owner: Owner = OWNER, **more: Any):
        self.reads: list[Read] = []
        values: dict[str, Any] = {"caching": Caching("use"), "timeout_ms": LATE_MS}
        asked = call(call_id=f"c{number}", **(values | more))
        self.task = asyncio.create_task(made.run(asked, owner, self._emit if streams else None))

    async def _emit(self, read: Read) -> None:
        self.reads.append(read)

    async def completion(self) -> Completion:
        outcome = await self.task
        assert isinstance(outcome, Completion)
        return outcome

    async def failed(self) -> FailedCall:
        outcome = await self.task
        assert isinstance(outcome, FailedCall)
        return outcome


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


async def completed(made: Pipeline, asked: Call, owner: Owner = OWNER) -> Completion:
    outcome: CallOutcome = await made.run(asked, owner)
    assert isinstance(outcome, Completion)
    return outcome


def cached(call_id: str, mode: Any = "use", **more: Any) -> Call:
    return call(call_id=call_id, caching=Caching(mode), **more)


async def test_a_hundred_equal_calls_make_one(ledger: InMemoryLedger) -> None:
    provider = StepByStep()
    made, _ = pipeline(provider, ledger, max_calls=200)
    callers = [Caller(made, number, streams=number % 2 == 0) for number in range(60)]
    await provider.waits.acquire()
    provider.go(2)
    await provider.waits.acquire()
    await provider.waits.acquire()
    callers += [Caller(made, number, streams=number % 2 == 0) for number in range(60, 100)]
    await asyncio.sleep(0)
    provider.go()
    answers = [await caller.completion() for caller in callers]
    assert provider.calls == 1
    assert list(ledger.settled) == ["c0/1"]
    assert {answer.parts for answer in answers} == {(TextPart("Because of scattering."),)}
    assert [answer.call_id for answer in answers] == [f"c{number}" for number in range(100)]
    assert all(caller.reads == callers[0].reads for caller in callers[::2])
    assert [read[2] for read in callers[0].reads] == [list(read) for read in ANSWER]
    leader, joiners = answers[0], answers[1:]
    assert (leader.reuse, leader.cost) == (None, leader.attempts[0].cost)
    for answer in joiners:
        assert answer.reuse is not None
        assert (answer.reuse.source, answer.reuse.attempt_id, answer.attempts) == ("flight", "c0/1", ())
        assert answer.cost is not None
        assert answer.cost.cost_nano_usd == 0
        assert (answer.usage, answer.timing) == (leader.usage, leader.timing)


async def test_a_leaver_holds_nobody_up_and_the_last_one_stops_the_provider(ledger: InMemoryLedger) -> None:
    provider = StepByStep()
    made, admission = pipeline(provider, ledger)
    first, second, third = (Caller(made, number) for number in range(3))
    await provider.waits.acquire()
    provider.go(2)
    await provider.waits.acquire()
    await provider.waits.acquire()
    first.task.cancel()
    await asyncio.wait([first.task])
    assert admission.cancel(OWNER, ["c1"]) == ["c1"]
    left = await second.failed()
    assert (left.failure.reason, left.failure.dispatched, left.attempts) == ("CANCELLED", False, ())
    assert left.failure.partial_text == "Because of scattering."
    assert (provider.closed, ledger.settled) == (0, {})
    third.task.cancel()
    await asyncio.wait([third.task])
    assert (provider.calls, provider.closed) == (1, 1)
    usage = ledger.settled["c0/1"].usage
    assert usage is not None
    assert usage.output_tokens == 6
    assert ledger.open_holds == set()


async def test_a_call_after_the_last_one_left_asks_anew(ledger: InMemoryLedger) -> None:
    provider = StepByStep()
    made, _ = pipeline(provider, ledger)
    first = Caller(made, 0)
    await provider.waits.acquire()
    first.task.cancel()
    second = Caller(made, 1)
    await asyncio.wait([first.task])
    provider.go()
    assert (await second.completion()).reuse is None
    assert provider.calls == 2


async def test_each_is_bound_by_its_own_deadline(ledger: InMemoryLedger) -> None:
    provider = StepByStep()
    made, _ = pipeline(provider, ledger)
    short = Caller(made, 0, timeout_ms=30)
    joined = Caller(made, 1, timeout_ms=40)
    longer = Caller(made, 2)
    await provider.waits.acquire()
    assert (await short.failed()).failure.reason == "DEADLINE_EXCEEDED"
    failed = await joined.failed()
    assert failed.failure.reason == "DEADLINE_EXCEEDED"
    assert "40 ms" in failed.failure.message
    provider.go()
    assert (await longer.completion()).reuse is None  # it would not have been in time with the others
    assert provider.calls == 2
    assert ledger.open_holds == set()


async def test_the_last_ones_deadline_is_told_and_settled_as_one(ledger: InMemoryLedger) -> None:
    provider = StepByStep()
    made, _ = pipeline(provider, ledger)
    caller = Caller(made, 0, timeout_ms=30)
    provider.go(2)
    failed = await caller.failed()
    assert (failed.failure.reason, failed.failure.partial_text) == ("DEADLINE_EXCEEDED", "Because of scattering.")
    assert "30 ms" in failed.failure.message
    (attempt,) = failed.attempts
    assert attempt.failure is not None
    assert (attempt.attempt_id, attempt.failure.reason) == ("c0/1", "DEADLINE_EXCEEDED")


async def test_a_failure_is_given_to_all_and_nothing_is_kept(ledger: InMemoryLedger) -> None:
    error = CallFailed(classify(ProviderFault(0, "Overloaded", type="overloaded_error")))
    provider = StepByStep([*ANSWER[:2], error])
    made, _ = pipeline(provider, ledger)
    callers = [Caller(made, number) for number in range(3)]
    provider.go()
    failures = [(await caller.failed()).failure for caller in callers]
    assert {(failure.reason, failure.message) for failure in failures} == {("PROVIDER_OVERLOADED", "Overloaded")}
    assert {failure.partial_text for failure in failures} == {"Because of scattering."}
    assert [failure.dispatched for failure in failures] == [True, False, False]
    assert list(ledger.settled) == ["c0/1"]
    await completed(made, cached("again"))
    assert provider.calls == 2


async def test_a_call_id_that_was_used_before_fails_alone(ledger: InMemoryLedger) -> None:
    provider = StepByStep()
    made, _ = pipeline(provider, ledger)
    ledger.failures.append(error_of_code("ALREADY_EXISTS", "HOLD_NONCE_MISMATCH", "held under another nonce"))
    first, second = Caller(made, 0), Caller(made, 1)
    provider.go()
    assert (await first.failed()).failure.reason == "CALL_ALREADY_DISPATCHED"
    assert (await second.completion()).reuse is None


@pytest.mark.parametrize(
    "other",
    [
        {"owner": Owner("prj_2", "usr_1", "key_1")},
        {"owner": Owner("prj_1", "usr_1", "key_2")},
        {"tags": {"feature": "search"}},
        {"text": "Why?"},
        {"caching": Caching("refresh")},
        {"caching": Caching("off")},
    ],
)
async def test_others_do_not_share(ledger: InMemoryLedger, other: dict[str, Any]) -> None:
    provider = StepByStep()
    made, _ = pipeline(provider, ledger)
    callers = [Caller(made, 0), Caller(made, 1, **other)]
    await provider.waits.acquire()
    await provider.waits.acquire()
    provider.go()
    for caller in callers:
        assert (await caller.completion()).reuse is None
    assert provider.calls == 2


async def test_a_slow_reader_bounds_what_is_buffered(ledger: InMemoryLedger) -> None:
    reads: list[list[Event]] = [[TextDelta("x" * 500)] for _ in range(20)]
    end: list[Event] = [UsageSoFar(TokenUsage(output_tokens=1)), Finished(FinishReason.STOP)]
    provider = ScriptedProvider([Started("m")], *reads, end)
    made, _ = pipeline(provider, ledger, answer_max_bytes=1_000)
    gate = asyncio.Semaphore(0)
    got = 0

    async def slow(read: Read) -> None:
        nonlocal got
        await gate.acquire()
        got += 1

    task = asyncio.create_task(made.run(cached("slow", timeout_ms=LATE_MS), OWNER, slow))
    quick = Caller(made, 1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert 0 < len(quick.reads) < 5
    late = Caller(made, 2)  # too late to be given everything from the start
    assert (await late.completion()).reuse is None
    for _ in range(22):
        gate.release()
    assert isinstance(await task, Completion)
    assert (await quick.completion()).reuse is not None
    assert (got, len(quick.reads)) == (22, 22)
    await completed(made, cached("again"))
    assert len(provider.requests) == 3  # an answer that large is not kept


async def test_an_answer_is_kept_and_replayed_with_its_usage_and_times(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, ledger)
    first = Caller(made, 0)
    original = await first.completion()
    again = Caller(made, 1)
    replayed = await again.completion()
    assert again.reads == first.reads
    assert (replayed.parts, replayed.usage, replayed.timing) == (original.parts, original.usage, original.timing)
    assert replayed.cost is not None
    assert (replayed.cost.cost_nano_usd, replayed.attempts, replayed.call_id) == (0, (), "c1")
    assert replayed.reuse is not None
    assert (replayed.reuse.source, replayed.reuse.attempt_id) == ("cache", "c0/1")
    assert (list(ledger.holds), len(provider.requests)) == (["c0/1"], 1)


async def test_refresh_asks_and_keeps_and_off_does_neither(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, ledger)
    assert (await completed(made, cached("1", "off"))).reuse is None
    assert (await completed(made, cached("2", "refresh"))).reuse is None
    assert (await completed(made, cached("3", "refresh"))).reuse is None
    reuse = (await completed(made, cached("4"))).reuse
    assert reuse is not None
    assert reuse.attempt_id == "3/1"
    assert (await completed(made, cached("5", "off"))).reuse is None


async def test_tenants_share_nothing(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, ledger)
    await completed(made, cached("1"))
    assert (await completed(made, cached("2"), Owner("prj_2"))).reuse is None
    assert (await completed(made, cached("3"), Owner("prj_1", "usr_9", "key_9"))).reuse is not None


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.PAUSE])
async def test_an_answer_that_is_not_whole_is_not_kept(ledger: InMemoryLedger, reason: FinishReason) -> None:
    provider = ScriptedProvider(*ANSWER[:2], [Finished(reason)])
    made, _ = pipeline(provider, ledger)
    await completed(made, cached("1"))
    assert (await completed(made, cached("2"))).reuse is None


async def test_what_a_failed_attempt_brought_is_no_part_of_the_kept_answer(ledger: InMemoryLedger) -> None:
    error = CallFailed(classify(ProviderFault(503, "try later")))
    provider = StepByStep([[Started("old-model")], error])
    provider.go()
    made, _ = pipeline(provider, ledger)
    await completed(made, cached("1", retries_max=1))
    again = Caller(made, 2, retries_max=1)
    await again.completion()
    assert [read[0] for read in again.reads] == ["1/2"] * 3
