"""A second attempt beside a slow one: who wins, what the caller sees, and that both are paid for once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from services.gateway.attempts import Cause, Completion, FailedCall
from services.gateway.calls import Call, Owner, ProviderRequest
from services.gateway.chunks import Event, Read, Started, TextDelta
from services.gateway.cost_port import Reservation
from services.gateway.failures import CallFailed, ProviderFault, classify
from services.gateway.hedging import SAMPLES_MIN, FirstContentTimes
from services.gateway.retries import RetryRules
from services.gateway.timing import Stopwatch
from services.runtime.clock import ManualClock
from services.runtime.errors import error_of_code
from tests.support.gateway import ANSWER, OWNER, InMemoryLedger, ScriptedProvider, attempt_of, call, pipeline, text_of

CATALOGUE = """
providers:
  - {name: a, kind: openai, models: [{name: m}]}
  - {name: b, kind: openai, models: [{name: m}]}
  - {name: c, kind: openai, models: [{name: m}]}
models:
  # The turns begin with a.
  - {name: m, deployments: [{model: a/m, weight: 1000}, {model: b/m, weight: 0.001}], fallbacks: {general: [c/m]}}
"""
DOWN = CallFailed(classify(ProviderFault(503, "down")))


class GatedProvider(ScriptedProvider):
    """Begins its answer when the gate is open."""

    def __init__(self, *script: Any, gate: asyncio.Event, hangs: bool = False) -> None:
        super().__init__(*script, hangs=hangs)
        self.gate = gate

    async def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        self.requests.append(request)
        try:
            yield [Started("early", request.attempt_id)]
            await self.gate.wait()
            inner = super().stream(request, deadline)
            async for read in inner:
                yield read
        finally:
            self.closed += 1


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


def asked(**more: Any) -> Call:
    values: dict[str, Any] = {"call_id": "x", "model": "m", "fallbacks": True, "hedge_after_ms": 5}
    return call(**(values | more))


def slow() -> ScriptedProvider:
    """Accepts the request and then says nothing."""
    return ScriptedProvider([Started("slow")], hangs=True)


async def test_the_first_content_wins_and_the_loser_is_stopped_and_settled(ledger: InMemoryLedger) -> None:
    first, second = slow(), ScriptedProvider(*ANSWER)
    made, _ = pipeline({"a": first, "b": second, "c": slow()}, ledger, catalogue=CATALOGUE)
    seen: list[tuple[str, Event]] = []

    async def emit(read: Read) -> None:
        seen.extend((read.attempt_id, event) for event in read.events)

    outcome = await made.run(asked(), OWNER, emit)
    assert isinstance(outcome, Completion)
    lost, won = outcome.attempts
    assert (lost.attempt_id, lost.deployment, lost.cause) == ("x/1", "a/m", Cause.FIRST)
    assert (won.attempt_id, won.deployment, won.cause) == ("x/2", "b/m", Cause.HEDGE)
    assert lost.failure is not None
    assert (lost.failure.reason, lost.failure.dispatched) == ("CANCELLED", True)
    assert "was the first to answer" in lost.failure.message
    assert (first.closed, second.closed) == (1, 1)
    # Nothing of the loser is seen, and everything of the winner, from its start.
    assert {attempt_id for attempt_id, _ in seen} == {"x/2"}
    assert isinstance(seen[0][1], Started)
    assert text_of([event for _, event in seen]) == "Because of scattering."
    assert ledger.settled.keys() == {"x/1", "x/2"}
    assert ledger.open_holds == set()
    usage = ledger.settled["x/1"].usage
    assert usage is not None
    assert (usage.input_tokens > 0, usage.measured) == (True, False)
    assert outcome.cost is not None
    assert outcome.cost.cost_nano_usd == usage.input_tokens + 11


async def test_an_answer_that_begins_in_time_stays_alone(ledger: InMemoryLedger) -> None:
    second = ScriptedProvider(*ANSWER)
    made, _ = pipeline({"a": ScriptedProvider(*ANSWER), "b": second, "c": slow()}, ledger, catalogue=CATALOGUE)
    outcome = await made.run(asked(hedge_after_ms=60_000), OWNER)
    assert [record.cause for record in outcome.attempts] == [Cause.FIRST]
    assert second.requests == []


async def test_the_first_attempt_can_still_win(ledger: InMemoryLedger) -> None:
    second = slow()
    first = GatedProvider(*ANSWER, gate=second.reached)
    made, _ = pipeline({"a": first, "b": second, "c": slow()}, ledger, catalogue=CATALOGUE)
    outcome = await made.run(asked(), OWNER)
    assert isinstance(outcome, Completion)
    # The one that gave the answer is the last one listed.
    assert [record.attempt_id for record in outcome.attempts] == ["x/2", "x/1"]
    assert (second.closed, ledger.open_holds) == (1, set())


async def test_the_winner_that_is_cut_is_not_replaced(ledger: InMemoryLedger) -> None:
    second = ScriptedProvider([TextDelta("Because")], DOWN)
    spare = ScriptedProvider(*ANSWER)
    made, _ = pipeline({"a": slow(), "b": second, "c": spare}, ledger, catalogue=CATALOGUE)
    outcome = await made.run(asked(retries_max=2), OWNER)
    assert isinstance(outcome, FailedCall)
    assert (outcome.failure.reason, outcome.failure.partial_text) == ("PROVIDER_UNAVAILABLE", "Because")
    assert (len(outcome.attempts), spare.requests, ledger.open_holds) == (2, [], set())


async def test_without_a_retry_budget_there_is_no_second_attempt(ledger: InMemoryLedger) -> None:
    second = ScriptedProvider(*ANSWER)
    made, _ = pipeline(
        {"a": slow(), "b": second, "c": slow()}, ledger, catalogue=CATALOGUE, retrying=RetryRules(budget_max=0)
    )
    outcome = await made.run(asked(timeout_ms=50), OWNER)
    assert isinstance(outcome, FailedCall)
    assert (outcome.failure.reason, second.requests) == ("DEADLINE_EXCEEDED", [])


class OneHoldLedger(InMemoryLedger):
    """A cost service whose budget is enough for one attempt; says when it has refused another."""

    def __init__(self) -> None:
        super().__init__()
        self.has_refused = asyncio.Event()

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        if self.holds:
            self.has_refused.set()
            raise error_of_code("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED", "used up")
        await super().hold(owner, reservation)


async def test_a_second_attempt_that_is_refused_leaves_the_first_alone() -> None:
    ledger, second = OneHoldLedger(), ScriptedProvider(*ANSWER)
    first = GatedProvider(*ANSWER, gate=ledger.has_refused)
    made, _ = pipeline({"a": first, "b": second, "c": slow()}, ledger, catalogue=CATALOGUE)
    outcome = await made.run(asked(), OWNER)
    assert isinstance(outcome, Completion)
    assert ([record.attempt_id for record in outcome.attempts], second.requests) == (["x/1"], [])
    assert ledger.open_holds == set()


async def test_where_both_fail_the_call_goes_on_elsewhere_without_another_hedge(ledger: InMemoryLedger) -> None:
    second = ScriptedProvider(DOWN)
    gate = asyncio.Event()

    class Opening(InMemoryLedger):
        async def settle(self, owner: Owner, settlement: Any) -> Any:
            gate.set()
            return await super().settle(owner, settlement)

    books = Opening()
    first = GatedProvider(DOWN, gate=gate)
    made, _ = pipeline({"a": first, "b": second, "c": ScriptedProvider(*ANSWER)}, books, catalogue=CATALOGUE)
    outcome = await made.run(asked(), OWNER)
    assert isinstance(outcome, Completion)
    told = [(record.attempt_id, record.deployment, record.cause) for record in outcome.attempts]
    assert told == [("x/2", "b/m", Cause.HEDGE), ("x/1", "a/m", Cause.FIRST), ("x/3", "c/m", Cause.FALLBACK)]
    assert books.open_holds == set()


@pytest.mark.parametrize("how", ["deadline", "id", "caller"])
async def test_both_are_stopped_and_settled_when_the_call_is(ledger: InMemoryLedger, how: str) -> None:
    first, second = slow(), slow()
    made, admission = pipeline({"a": first, "b": second, "c": slow()}, ledger, catalogue=CATALOGUE)
    task = asyncio.create_task(made.run(asked(timeout_ms=100 if how == "deadline" else 60_000), OWNER))
    await second.reached.wait()
    if how == "caller":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        if how == "id":
            assert admission.cancel(OWNER, ["x"])
        outcome = await task
        assert isinstance(outcome, FailedCall)
        assert outcome.failure.reason == ("CANCELLED" if how == "id" else "DEADLINE_EXCEEDED")
        assert len(outcome.attempts) == 2
    assert (first.closed, second.closed) == (1, 1)
    assert ledger.settled.keys() == {"x/1", "x/2"}
    assert ledger.open_holds == set()


async def test_a_place_that_is_named_is_asked_twice_itself(ledger: InMemoryLedger) -> None:
    provider = slow()
    made, _ = pipeline({"a": provider, "b": slow(), "c": slow()}, ledger, catalogue=CATALOGUE)
    outcome = await made.run(asked(model="a/m", timeout_ms=100), OWNER)
    assert [request.attempt_id for request in provider.requests] == ["x/1", "x/2"]
    assert isinstance(outcome, FailedCall)


def test_the_usual_time_is_the_95th_percentile_of_the_latest() -> None:
    clock, times = ManualClock(), FirstContentTimes()

    def learn(ttft_ms: int) -> None:
        attempt = attempt_of(call(), model="m")
        attempt.stopwatch = Stopwatch(clock)
        attempt.stopwatch.leave()
        if ttft_ms:
            clock.advance(ttft_ms / 1_000)
            attempt.stopwatch.arrived([TextDelta("x")])
        times.learn(attempt)

    for ttft_ms in [0] * 30 + list(range(1, SAMPLES_MIN)):
        learn(ttft_ms)
    name = "scripted/m"
    assert (times.delay_s(name, 0), times.delay_s(name, None), times.delay_s(name, 300)) == (None, None, 0.3)
    learn(SAMPLES_MIN)
    assert times.delay_s(name, 0) == pytest.approx(0.019)
    for ttft_ms in range(1, 301):
        learn(ttft_ms)
    # The latest 200 are 101 - 300.
    assert times.delay_s(name, 0) == pytest.approx(0.290)
