"""The whole way of a call, over a scripted provider and a ledger in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from services.gateway.attempts import CallOutcome, Completion, Cost, FailedCall
from services.gateway.breaker import BreakerRules
from services.gateway.calls import Owner, ProviderRequest, TextPart
from services.gateway.chunks import Event, FinishReason, Read, Started, TextDelta, UsageSoFar
from services.gateway.cost_port import Reservation, Settlement
from services.gateway.failures import CallFailed, Failure, ProviderFault, classify, refused
from services.gateway.limits import LimitRules, LocalLimits, RateLimits
from services.gateway.retries import RetryRules
from services.gateway.usage import TokenUsage
from services.runtime.backoff import Backoff
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.errors import error_of_code
from tests.support.gateway import ANSWER, OWNER, InMemoryLedger, ScriptedProvider, call, pipeline

ATTEMPT = "run_1/7/1/1"


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


def failed(outcome: CallOutcome) -> FailedCall:
    assert isinstance(outcome, FailedCall)
    return outcome


async def test_an_answer_with_usage_times_and_cost(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, ledger)
    outcome = await made.run(call(), OWNER)
    assert isinstance(outcome, Completion)
    assert outcome.parts == (TextPart("Because of scattering."),)
    assert outcome.finish_reason is FinishReason.STOP
    assert outcome.usage == TokenUsage(input_tokens=6, output_tokens=5)
    assert (outcome.call_id, outcome.model, outcome.provider_model) == ("run_1/7/1", "scripted/model", "model-1")
    assert outcome.timing.chunks == 2
    assert outcome.timing.ttft_output_us is not None
    (attempt,) = outcome.attempts
    assert (attempt.attempt_id, attempt.provider, attempt.provider_request_id) == (ATTEMPT, "scripted", "req-1")
    assert outcome.cost == attempt.cost
    assert outcome.cost is not None
    assert ledger.settled[ATTEMPT].succeeded
    assert provider.requests[0].attempt_id == ATTEMPT


async def test_the_catalogues_default_limit_is_sent_and_held(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, ledger)
    await made.run(call(), OWNER)
    assert provider.requests[0].max_output_tokens == ledger.holds[ATTEMPT].output_tokens_max == 100


async def test_emit_sees_every_read_in_order(ledger: InMemoryLedger) -> None:
    seen: list[list[Event]] = []
    offsets: list[int] = []

    async def emit(read: Read) -> None:
        assert read.attempt_id == ATTEMPT
        seen.append(read.events)
        offsets.append(read.offset_us)

    made, _ = pipeline(ScriptedProvider(*ANSWER), ledger)
    await made.run(call(), OWNER, emit)
    assert seen == [list(read) for read in ANSWER]
    assert offsets == sorted(offsets)


@pytest.mark.parametrize("reads", range(len(ANSWER)))
async def test_an_answer_that_stops_early_is_no_success(ledger: InMemoryLedger, reads: int) -> None:
    made, _ = pipeline(ScriptedProvider(*ANSWER[:reads]), ledger)
    outcome = failed(await made.run(call(), OWNER))
    assert outcome.failure.reason == "STREAM_TRUNCATED"
    assert outcome.failure.dispatched
    assert outcome.failure.partial_text == ("Because of scattering." if reads == 2 else "")
    assert outcome.failure.retryable is (reads < 2)
    usage = ledger.settled[ATTEMPT].usage
    assert usage is not None
    assert not usage.measured
    assert usage.output_tokens == (6 if reads == 2 else 0)


async def test_an_answer_without_usage_is_estimated(ledger: InMemoryLedger) -> None:
    reads = [[event for event in read if not isinstance(event, UsageSoFar)] for read in ANSWER]
    made, _ = pipeline(ScriptedProvider(*reads), ledger)
    outcome = await made.run(call(), OWNER)
    assert isinstance(outcome, Completion)
    assert not outcome.usage.measured
    assert outcome.usage.output_tokens == 6


async def test_a_provider_that_refuses_is_owed_nothing(ledger: InMemoryLedger) -> None:
    refusal = CallFailed(classify(ProviderFault(429, "slow down", retry_after="2")))
    made, _ = pipeline(ScriptedProvider(refusal), ledger)
    outcome = failed(await made.run(call(), OWNER))
    assert (outcome.failure.reason, outcome.failure.retry_after_ms) == ("RATE_LIMITED", 2_000)
    assert ledger.settled[ATTEMPT].usage is None
    (attempt,) = outcome.attempts
    assert attempt.failure == outcome.failure


async def test_an_error_in_the_middle_keeps_text_and_usage(ledger: InMemoryLedger) -> None:
    error = CallFailed(classify(ProviderFault(0, "Overloaded", type="overloaded_error")))
    made, _ = pipeline(ScriptedProvider([Started("model-1")], [TextDelta("Because")], error), ledger)
    outcome = failed(await made.run(call(), OWNER))
    assert (outcome.failure.reason, outcome.failure.partial_text) == ("PROVIDER_OVERLOADED", "Because")
    assert ledger.settled[ATTEMPT].usage == outcome.failure.usage


async def test_a_broken_connection_may_have_cost_the_prompt(ledger: InMemoryLedger) -> None:
    made, _ = pipeline(ScriptedProvider(CallFailed(Failure("NETWORK_ERROR", "reset", dispatched=True))), ledger)
    await made.run(call(), OWNER)
    usage = ledger.settled[ATTEMPT].usage
    assert usage is not None
    assert (usage.input_tokens > 0, usage.output_tokens, usage.measured) == (True, 0, False)


async def test_what_never_left_is_released(ledger: InMemoryLedger) -> None:
    made, _ = pipeline(ScriptedProvider(refused("NETWORK_ERROR", "no connection")), ledger)
    outcome = failed(await made.run(call(), OWNER))
    assert not outcome.failure.dispatched
    assert outcome.attempts == ()
    assert (ledger.released, ledger.settled) == ([ATTEMPT], {})


@pytest.mark.parametrize("model", ["scripted/none", "nobody/model"])
async def test_an_unknown_model_holds_and_sends_nothing(ledger: InMemoryLedger, model: str) -> None:
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, ledger)
    outcome = failed(await made.run(call(model=model), OWNER))
    assert (outcome.failure.reason, outcome.failure.dispatched) == ("MODEL_NOT_FOUND", False)
    assert (ledger.calls, provider.requests) == (0, [])


async def test_a_refused_budget_sends_nothing(ledger: InMemoryLedger) -> None:
    ledger.failures = [error_of_code("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED", "used up")]
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, ledger)
    outcome = failed(await made.run(call(), OWNER))
    assert (outcome.failure.reason, outcome.failure.dispatched, provider.requests) == ("BUDGET_EXCEEDED", False, [])


QUICK = RetryRules(backoff=Backoff(1, 2))
DOWN = CallFailed(classify(ProviderFault(503, "down")))


class FlakyProvider(ScriptedProvider):
    """Goes through its scripts, one per request, and stays with the last."""

    def __init__(self, *scripts: tuple[Sequence[Event] | Exception, ...]) -> None:
        super().__init__()
        self.scripts = list(scripts)

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        self.script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return super().stream(request, deadline)


async def test_an_attempt_that_failed_is_followed_by_another_with_its_own_hold(ledger: InMemoryLedger) -> None:
    provider = FlakyProvider((DOWN,), ([Started()], [UsageSoFar(TokenUsage(6))], DOWN), ANSWER)
    made, _ = pipeline(provider, ledger, retrying=QUICK)
    seen: list[Event] = []

    async def emit(read: Read) -> None:
        seen.extend(event for event in read.events if isinstance(event, TextDelta))

    outcome = await made.run(call(retries_max=2), OWNER, emit)
    assert isinstance(outcome, Completion)
    ids = ["run_1/7/1/1", "run_1/7/1/2", "run_1/7/1/3"]
    assert [attempt.attempt_id for attempt in outcome.attempts] == ids
    assert [attempt.failure is None for attempt in outcome.attempts] == [False, False, True]
    assert [attempt.cost and attempt.cost.cost_nano_usd for attempt in outcome.attempts] == [0, 6, 11]
    assert outcome.cost is not None
    assert outcome.cost.cost_nano_usd == 17
    assert list(ledger.settled) == ids
    assert ledger.open_holds == set()
    assert [request.attempt_id for request in provider.requests] == ids
    assert seen == [TextDelta("Because of "), TextDelta("scattering.")]
    assert outcome.timing.queue_us <= outcome.timing.latency_us


async def test_nothing_is_sent_before_a_retry_after_is_over(ledger: InMemoryLedger) -> None:
    asked_s = [0.01, 0.04, 0.16, 0.3]
    scripts = [(CallFailed(classify(ProviderFault(429, "slow down", retry_after=str(wait_s)))),) for wait_s in asked_s]
    made, _ = pipeline(FlakyProvider(*scripts, ANSWER), ledger, retrying=QUICK)
    outcome = await made.run(call(retries_max=4), OWNER)
    assert isinstance(outcome, Completion)
    sent_us = [attempt.started_at_us for attempt in outcome.attempts]
    gaps_us = [after - before for before, after in pairwise(sent_us)]
    assert [gap_us >= wait_s * 1_000_000 for gap_us, wait_s in zip(gaps_us, asked_s, strict=True)] == [True] * 4


async def test_a_call_that_never_works_lists_what_was_sent(ledger: InMemoryLedger) -> None:
    made, _ = pipeline(FlakyProvider((DOWN,), (refused("NETWORK_ERROR", "gone"),)), ledger, retrying=QUICK)
    outcome = failed(await made.run(call(retries_max=1), OWNER))
    assert (outcome.failure.reason, outcome.failure.dispatched) == ("NETWORK_ERROR", True)
    assert [attempt.attempt_id for attempt in outcome.attempts] == ["run_1/7/1/1"]
    assert ledger.open_holds == set()


class WatchedLedger(InMemoryLedger):
    """Says when it has settled something."""

    def __init__(self) -> None:
        super().__init__()
        self.has_settled = asyncio.Event()

    async def settle(self, owner: Owner, settlement: Settlement) -> Cost:
        cost = await super().settle(owner, settlement)
        self.has_settled.set()
        return cost


async def test_a_call_can_be_cancelled_between_its_attempts() -> None:
    slow = CallFailed(classify(ProviderFault(429, "slow down", retry_after="5")))
    watched = WatchedLedger()
    made, admission = pipeline(ScriptedProvider(slow), watched)
    task = asyncio.create_task(made.run(call(retries_max=1), OWNER))
    await watched.has_settled.wait()
    assert admission.cancel(OWNER, ["run_1/7/1"])
    outcome = failed(await task)
    assert (outcome.failure.reason, outcome.failure.dispatched) == ("CANCELLED", True)
    assert len(outcome.attempts) == 1


async def test_a_used_up_limit_refuses_before_anything_is_held(ledger: InMemoryLedger) -> None:
    limits = RateLimits(LocalLimits(SYSTEM_CLOCK), SYSTEM_CLOCK, LimitRules(key_requests_per_minute=6))
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, ledger, limits=limits)
    assert isinstance(await made.run(call(call_id="a"), OWNER), Completion)
    outcome = failed(await made.run(call(call_id="b", retries_max=2), OWNER))
    assert (outcome.failure.reason, outcome.failure.dispatched) == ("RATE_LIMITED", False)
    assert (list(ledger.holds), len(provider.requests)) == (["a/1"], 1)


async def test_a_breaker_that_opens_ends_the_retries(ledger: InMemoryLedger) -> None:
    breaking = BreakerRules(consecutive_failures=1)
    made, _ = pipeline(ScriptedProvider(DOWN), ledger, retrying=QUICK, breaking=breaking)
    outcome = failed(await made.run(call(retries_max=5), OWNER))
    assert (outcome.failure.reason, outcome.failure.dispatched) == ("CIRCUIT_OPEN", True)
    assert len(outcome.attempts) == 1


async def test_an_open_breaker_refuses_before_anything_is_held(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider(CallFailed(classify(ProviderFault(503, "down"))))
    made, _ = pipeline(provider, ledger, breaking=BreakerRules(consecutive_failures=2, open_s=30.0))
    for name in ("a", "b"):
        assert failed(await made.run(call(call_id=name), OWNER)).failure.reason == "PROVIDER_UNAVAILABLE"
    outcome = failed(await made.run(call(call_id="c"), OWNER))
    assert (outcome.failure.reason, outcome.failure.dispatched, outcome.attempts) == ("CIRCUIT_OPEN", False, ())
    assert outcome.failure.retryable
    assert 0 < outcome.failure.retry_after_ms <= 30_000
    assert ledger.holds.keys() == {"a/1", "b/1"}
    ignoring = failed(await made.run(call(call_id="d", ignore_circuit_breaker=True), OWNER))
    assert ignoring.failure.reason == "PROVIDER_UNAVAILABLE"


async def test_the_deadline_stops_the_provider_and_is_settled(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider([Started()], [TextDelta("Because")], hangs=True)
    made, _ = pipeline(provider, ledger)
    outcome = failed(await made.run(call(timeout_ms=50), OWNER))
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"
    assert outcome.failure.partial_text == "Because"
    assert not outcome.failure.retryable
    assert provider.closed == 1
    usage = ledger.settled[ATTEMPT].usage
    assert usage is not None
    assert usage.output_tokens == 2


class SilentLedger(InMemoryLedger):
    """A cost service that does not answer."""

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        await asyncio.Event().wait()


async def test_a_deadline_that_strikes_before_the_call_left_may_be_tried_again() -> None:
    silent = SilentLedger()
    provider = ScriptedProvider(*ANSWER)
    made, _ = pipeline(provider, silent)
    outcome = failed(await made.run(call(timeout_ms=50), OWNER))
    assert (outcome.failure.reason, outcome.failure.dispatched) == ("DEADLINE_EXCEEDED", False)
    assert outcome.failure.retryable
    assert "nothing was sent" in outcome.failure.message
    assert not provider.requests
    assert not outcome.attempts


async def test_cancelling_by_id_stops_the_provider_and_gives_an_outcome(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider([TextDelta("Because")], hangs=True)
    made, admission = pipeline(provider, ledger)
    task = asyncio.create_task(made.run(call(), OWNER))
    await provider.reached.wait()
    assert admission.cancel(OWNER, ["run_1/7/1"]) == ["run_1/7/1"]
    outcome = failed(await task)
    assert (outcome.failure.reason, outcome.failure.partial_text) == ("CANCELLED", "Because")
    assert provider.closed == 1
    assert ledger.settled.keys() == {ATTEMPT}


async def test_a_caller_who_leaves_stops_the_provider_and_is_settled(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider([TextDelta("Because")], hangs=True)
    made, admission = pipeline(provider, ledger)
    task = asyncio.create_task(made.run(call(), OWNER))
    await provider.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert provider.closed == 1
    settled = ledger.settled[ATTEMPT]
    assert not settled.succeeded
    assert settled.usage is not None
    # The id is free again.
    assert admission.cancel(OWNER, ["run_1/7/1"]) == []


async def test_a_fault_of_ours_is_an_outcome_and_settled(
    ledger: InMemoryLedger, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = pipeline(ScriptedProvider([TextDelta("Because")], ZeroDivisionError()), ledger)
    outcome = failed(await made.run(call(), OWNER))
    assert (outcome.failure.reason, outcome.failure.partial_text) == ("INTERNAL", "Because")
    assert "ZeroDivisionError" not in outcome.failure.message
    assert "ZeroDivisionError" in caplog.text
    assert ledger.settled.keys() == {ATTEMPT}


async def test_calls_run_beside_each_other_within_the_bound(ledger: InMemoryLedger) -> None:
    provider = ScriptedProvider([Started()], hangs=True)
    made, admission = pipeline(provider, ledger, max_calls=2)
    tasks = [asyncio.create_task(made.run(replace(call(), call_id=name), OWNER)) for name in ("a", "b")]
    await provider.reached.wait()
    assert failed(await made.run(replace(call(), call_id="c"), OWNER)).failure.reason == "OVERLOADED"
    assert failed(await made.run(replace(call(), call_id="a"), OWNER)).failure.reason == "OVERLOADED"
    admission.cancel(OWNER, ["a", "b"])
    assert [failed(outcome).failure.reason for outcome in await asyncio.gather(*tasks)] == ["CANCELLED"] * 2
    assert ledger.settled.keys() == {"a/1", "b/1"}
