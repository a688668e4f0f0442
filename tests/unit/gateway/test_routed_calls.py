"""Calls that more than one deployment or model may answer: what callers see, and what is held and settled."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.attempts import CallOutcome, Cause, Completion, FailedCall
from services.gateway.breaker import BreakerRules
from services.gateway.calls import Caching, Call, Owner
from services.gateway.chunks import Event, Read, Started, TextDelta
from services.gateway.cost_port import Reservation
from services.gateway.failures import CallFailed, ProviderFault, classify, refused
from services.gateway.limits import LocalLimits, RateLimits
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.errors import error_of_code
from tests.support.gateway import ANSWER, OWNER, InMemoryLedger, ScriptedProvider, call, pipeline, text_of

CATALOGUE = """
providers:
  - {name: a, kind: openai, models: [{name: m, default_max_output_tokens: 50, billed_as: openai/m}]}
  - {name: b, kind: openai, models: [{name: m, requests_per_minute: 60, burst_s: 1}]}
  - {name: c, kind: anthropic, models: [{name: m, default_max_output_tokens: 70}]}
models:
  - name: one
    deployments: [{model: a/m}]
    fallbacks: {general: [two, c/m], context_window: [c/m]}
  - name: two
    deployments: [{model: b/m, weight: 3}, {model: a/m}]
aliases: {fast: one}
"""
DOWN = CallFailed(classify(ProviderFault(503, "down")))
TOO_LONG = CallFailed(classify(ProviderFault(400, "prompt is too long")))


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


def asked(model: str, *, call_id: str = "x", **more: Any) -> Call:
    return call(call_id=call_id, model=model, fallbacks=True, **more)


def tried(outcome: CallOutcome) -> list[tuple[str, str, Cause]]:
    return [(record.attempt_id, record.deployment, record.cause) for record in outcome.attempts]


async def test_a_fallback_answers_as_if_nothing_had_been_and_is_reported(ledger: InMemoryLedger) -> None:
    long, fine = ScriptedProvider([Started("a-1")], TOO_LONG), ScriptedProvider(*ANSWER)
    made, _ = pipeline({"a": long, "b": ScriptedProvider(), "c": fine}, ledger, catalogue=CATALOGUE)
    seen: list[Event] = []

    async def emit(read: Read) -> None:
        seen.extend(read.events)

    outcome = await made.run(asked("fast"), OWNER, emit)
    assert isinstance(outcome, Completion)
    assert tried(outcome) == [("x/1", "a/m", Cause.FIRST), ("x/2", "c/m", Cause.FALLBACK)]
    assert (outcome.model, outcome.provider_model) == ("fast", "model-1")
    assert text_of(seen) == "Because of scattering."
    assert outcome.attempts[0].failure is not None
    assert outcome.attempts[0].failure.reason == "CONTEXT_LENGTH_EXCEEDED"
    # Each attempt was held by itself, under the name that the bill shows, and for what its own model may answer.
    held = [(hold.provider, hold.model, hold.output_tokens_max) for hold in ledger.holds.values()]
    assert held == [("openai", "m", 50), ("c", "m", 70)]
    assert ledger.open_holds == set()


async def test_after_the_first_text_the_stream_ends_and_nothing_else_is_asked(ledger: InMemoryLedger) -> None:
    cut, spare = ScriptedProvider([Started()], [TextDelta("Because")], DOWN), ScriptedProvider(*ANSWER)
    made, _ = pipeline({"a": cut, "b": spare, "c": spare}, ledger, catalogue=CATALOGUE)
    outcome = await made.run(asked("one", retries_max=2), OWNER)
    assert isinstance(outcome, FailedCall)
    assert (outcome.failure.partial_text, spare.requests) == ("Because", [])


class OneHoldLedger(InMemoryLedger):
    """A cost service whose budget is enough for one attempt."""

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        if self.holds:
            raise error_of_code("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED", "used up")
        await super().hold(owner, reservation)


async def test_no_attempt_is_sent_without_a_hold_of_its_own() -> None:
    ledger, spare = OneHoldLedger(), ScriptedProvider(*ANSWER)
    made, _ = pipeline({"a": ScriptedProvider(DOWN), "b": spare, "c": spare}, ledger, catalogue=CATALOGUE)
    outcome = await made.run(asked("one"), OWNER)
    assert isinstance(outcome, FailedCall)
    assert (outcome.failure.reason, outcome.failure.dispatched, spare.requests) == ("BUDGET_EXCEEDED", True, [])
    assert tried(outcome) == [("x/1", "a/m", Cause.FIRST)]
    assert ledger.open_holds == set()


async def test_a_full_deployment_is_passed_over_without_using_up_an_id(ledger: InMemoryLedger) -> None:
    providers = {name: ScriptedProvider(*ANSWER) for name in "abc"}
    limits = RateLimits(LocalLimits(SYSTEM_CLOCK), SYSTEM_CLOCK)
    made, _ = pipeline(providers, ledger, catalogue=CATALOGUE, limits=limits)
    outcomes = [await made.run(asked("two", call_id=f"x{turn}"), OWNER) for turn in range(8)]
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    # b takes one a second, so that a gets the others.
    assert len(providers["b"].requests) == 1
    assert len(providers["a"].requests) == 7
    causes = {cause for outcome in outcomes for _, _, cause in tried(outcome)}
    assert causes == {Cause.FIRST, Cause.REROUTE}
    assert list(ledger.holds) == [f"x{turn}/1" for turn in range(8)]


async def test_an_open_breaker_sends_calls_elsewhere_at_once(ledger: InMemoryLedger) -> None:
    providers = {"a": ScriptedProvider(*ANSWER), "b": ScriptedProvider(DOWN), "c": ScriptedProvider(*ANSWER)}
    breaking = BreakerRules(consecutive_failures=1, open_s=60.0)
    made, _ = pipeline(providers, ledger, catalogue=CATALOGUE, breaking=breaking)
    outcomes = [await made.run(asked("two", call_id=f"x{turn}", retries_max=1), OWNER) for turn in range(6)]
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert len(providers["b"].requests) == 1


async def test_what_never_left_the_first_deployment_is_released_and_the_next_one_has_its_own_id(
    ledger: InMemoryLedger,
) -> None:
    providers = {"a": ScriptedProvider(refused("NETWORK_ERROR", "gone")), "c": ScriptedProvider(*ANSWER)}
    made, _ = pipeline(providers | {"b": providers["a"]}, ledger, catalogue=CATALOGUE)
    outcome = await made.run(asked("one"), OWNER)
    assert tried(outcome) == [("x/3", "c/m", Cause.FALLBACK)]
    assert (ledger.released, ledger.open_holds) == (["x/1", "x/2"], set())


async def test_an_answer_of_a_fallback_is_not_kept_as_the_models_own(ledger: InMemoryLedger) -> None:
    providers = {"a": ScriptedProvider(DOWN), "b": ScriptedProvider(DOWN), "c": ScriptedProvider(*ANSWER)}
    made, _ = pipeline(providers, ledger, catalogue=CATALOGUE)
    for turn in range(2):
        outcome = await made.run(asked("one", call_id=f"x{turn}", caching=Caching("use")), OWNER)
        assert isinstance(outcome, Completion)
        assert outcome.reuse is None
    assert len(providers["c"].requests) == 2
