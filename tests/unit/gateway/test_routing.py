"""Which deployment gets a call, and what follows a failure."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.attempts import Attempt, Cause
from services.gateway.calls import Call, ImagePart, Message, Parameters, ReasoningPart, TextPart, Tool
from services.gateway.catalogue import Catalogue
from services.gateway.failures import RULES, Failure
from services.gateway.retries import Retries, RetryRules
from services.gateway.routing import Router, Step, Way
from services.runtime.backoff import Backoff
from services.runtime.clock import ManualClock
from tests.support.gateway import attempt_of, call, catalogue_of, raises_call_failed

PROVIDERS = """
providers:
  - {name: a, kind: openai, models: [{name: "*"}]}
  - {name: b, kind: openai, models: [{name: "*"}]}
  - {name: c, kind: anthropic, models: [{name: "*"}]}
  - {name: plain, kind: openai, models: [{name: "*", capabilities: []}]}
  - {name: sees, kind: openai, models: [{name: "*", capabilities: [images]}]}
"""
ONE = PROVIDERS + "models: [{name: m, deployments: [{model: a/m}], fallbacks: "
TWO = PROVIDERS + "models: [{name: m, deployments: [{model: a/m, weight: 3}, {model: b/m}]}]"
FALLBACKS = ONE + "{general: [plain/g, c/g], context_window: [b/long, a/m], content_policy: [c/free]}}]"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def router(clock: ManualClock, *, seed: int = 7, down: set[str] | None = None) -> Router:
    retries = Retries(clock, RetryRules(backoff=Backoff(100, 1_000), budget_per_minute=1e6, budget_max=1e6))
    names = down if down is not None else set()
    return Router(retries, clock, is_open=lambda deployment: deployment.name in names, rng=random.Random(seed))


def asked(**more: Any) -> Call:
    values: dict[str, Any] = {"model": "m", "fallbacks": True, "retries_max": 2}
    return call(**(values | more))


def tried(way: Way, step: Step, failure: Failure | None, *, reserved: bool = True) -> Attempt:
    """An attempt at a step, as it ended."""
    attempt = attempt_of(way.call_for(step.deployment))
    attempt.deployment, attempt.cause, attempt.waits = step.deployment, step.cause, step.waits
    attempt.reserved, attempt.failure, attempt.deadline = reserved, failure, 100.0
    return attempt


def failed(way: Way, step: Step, reason: str, **more: Any) -> Step | None:
    """What follows when the provider fails an attempt so."""
    failure = Failure(reason, "", **({"dispatched": True} | more))
    return way.after(tried(way, step, failure), failure)


def refused(way: Way, step: Step, *, wait_ms: int = 100, reason: str = "RATE_LIMITED") -> Step | None:
    """What follows when the gateway itself refuses an attempt."""
    failure = Failure(reason, "", dispatched=False, retry_after_ms=wait_ms)
    return way.after(tried(way, step, None, reserved=False), failure)


def shown(step: Step | None) -> tuple[str, Cause] | None:
    return None if step is None else (step.deployment.name, step.cause)


@given(weights=st.lists(st.integers(1, 20), min_size=2, max_size=6), seed=st.integers(0, 1_000))
def test_turns_follow_the_weights_and_are_evenly_spread(weights: list[int], seed: int) -> None:
    places = ", ".join(f"{{model: a/{index}, weight: {weight}}}" for index, weight in enumerate(weights))
    route = catalogue_of(PROVIDERS + f"models: [{{name: m, deployments: [{places}]}}]").route("m")
    made = router(ManualClock(), seed=seed)
    total = sum(weights)
    counts: Counter[str] = Counter()
    for turn in range(1, 3 * total + 1):
        picked = made.pick(route, (), ignores_breakers=False)
        assert picked is not None
        counts[picked.model] += 1
        # Nobody is ever further from its share than the number of deployments.
        for index, weight in enumerate(weights):
            assert abs(counts[str(index)] - turn * weight / total) <= len(weights)


def test_a_seed_decides_the_order(clock: ManualClock) -> None:
    catalogue = catalogue_of(TWO)

    def order(seed: int) -> list[str]:
        made = router(clock, seed=seed)
        return [made.way(catalogue, asked()).first.deployment.name for _ in range(12)]

    assert order(1) == order(1)
    assert sorted(order(1)) == sorted(order(2)) == ["a/m"] * 9 + ["b/m"] * 3


def test_a_deployment_with_an_open_breaker_gets_no_turn_while_another_is_healthy(clock: ManualClock) -> None:
    catalogue, down = catalogue_of(TWO), {"a/m"}
    made = router(clock, down=down)
    assert {made.way(catalogue, asked()).first.deployment.name for _ in range(8)} == {"b/m"}
    ignoring = asked(ignore_circuit_breaker=True)
    assert {made.way(catalogue, ignoring).first.deployment.name for _ in range(8)} == {"a/m", "b/m"}
    down.add("b/m")
    assert {made.way(catalogue, asked()).first.deployment.name for _ in range(8)} == {"a/m", "b/m"}


def test_a_deployment_that_asked_for_a_rest_gets_no_turn_until_it_is_over(clock: ManualClock) -> None:
    catalogue, made = catalogue_of(TWO), router(clock)
    way = made.way(catalogue, asked())
    assert shown(failed(way, way.first, "RATE_LIMITED", retry_after_ms=5_000)) is not None
    resting = way.first.deployment.name
    assert resting not in {made.way(catalogue, asked()).first.deployment.name for _ in range(8)}
    clock.advance(5)
    assert resting in {made.way(catalogue, asked()).first.deployment.name for _ in range(8)}


def test_a_retry_goes_elsewhere_at_once_and_home_after_its_pause(clock: ManualClock) -> None:
    way = router(clock).way(catalogue_of(TWO), asked())
    first = way.first
    second = failed(way, first, "RATE_LIMITED", retry_after_ms=700)
    assert second is not None
    assert (second.cause, second.pause_s) == (Cause.RETRY, 0.0)
    assert second.deployment != first.deployment
    third = failed(way, second, "RATE_LIMITED", retry_after_ms=60_000)
    assert third is not None
    # Where it has to wait anyway, it goes where the wait is the shortest.
    assert (third.deployment, third.cause) == (first.deployment, Cause.RETRY)
    assert third.pause_s >= 0.7
    assert failed(way, third, "PROVIDER_ERROR") is None


def test_a_refused_key_is_tried_at_another_deployment_but_never_twice(clock: ManualClock) -> None:
    way = router(clock).way(catalogue_of(TWO), asked())
    second = failed(way, way.first, "PROVIDER_AUTH")
    assert shown(second) in {("a/m", Cause.RETRY), ("b/m", Cause.RETRY)}
    assert second is not None
    assert failed(way, second, "PROVIDER_AUTH") is None
    bad = router(clock).way(catalogue_of(TWO), asked())
    assert failed(bad, bad.first, "INVALID_REQUEST") is None


def test_where_there_is_no_room_the_next_is_asked_and_then_the_shortest_wait_is_taken(clock: ManualClock) -> None:
    three = TWO.replace("{model: b/m}", "{model: b/m}, {model: c/m}")
    way = router(clock).way(catalogue_of(three), asked(retries_max=0, fallbacks=False))
    first = way.first
    assert not first.waits
    second = refused(way, first, wait_ms=300)
    assert second is not None
    assert (second.cause, second.waits, second.pause_s) == (Cause.REROUTE, False, 0.0)
    third = refused(way, second, wait_ms=200)
    assert third is not None
    assert {first.deployment.name, second.deployment.name, third.deployment.name} == {"a/m", "b/m", "c/m"}
    fourth = refused(way, third, wait_ms=2_000)
    assert fourth is not None
    assert (fourth.deployment, fourth.waits) == (second.deployment, True)
    assert refused(way, fourth, wait_ms=100) is None


def test_an_open_breaker_at_the_end_leaves_the_wait_for_a_limit(clock: ManualClock) -> None:
    way = router(clock).way(catalogue_of(TWO), asked(retries_max=0, fallbacks=False))
    second = refused(way, way.first, wait_ms=50)
    assert second is not None
    third = refused(way, second, reason="CIRCUIT_OPEN")
    assert third is not None
    assert (third.deployment, third.waits) == (way.first.deployment, True)
    assert refused(way, third) is None


def test_only_a_few_are_asked_for_room(clock: ManualClock) -> None:
    places = ", ".join(f"{{model: a/{index}}}" for index in range(6))
    way = router(clock).way(catalogue_of(PROVIDERS + f"models: [{{name: m, deployments: [{places}]}}]"), asked())
    step: Step | None = way.first
    asked_for: list[tuple[str, bool]] = []
    for wait_ms in (300, 100, 200, 400):
        assert step is not None
        asked_for.append((step.deployment.name, step.waits))
        step = refused(way, step, wait_ms=wait_ms)
    assert step is None
    assert [waits for _, waits in asked_for] == [False, False, False, True]
    assert asked_for[3][0] == asked_for[1][0]


@pytest.mark.parametrize("reason", sorted(RULES))
def test_the_error_table_decides_about_fallbacks(clock: ManualClock, reason: str) -> None:
    first_of = {"general": "plain/g", "context_window": "b/long", "content_policy": "c/free", None: None}
    kind = RULES[reason].fallback
    way = router(clock).way(catalogue_of(FALLBACKS), asked(retries_max=0, retry_ambiguous=True))
    step = failed(way, way.first, reason)
    assert shown(step) == (None if kind is None else (first_of[kind], Cause.FALLBACK))


def test_fallbacks_come_in_their_order_each_once_and_by_the_newest_failure(clock: ManualClock) -> None:
    way = router(clock).way(catalogue_of(FALLBACKS), asked(retries_max=0))
    second = failed(way, way.first, "PROVIDER_OVERLOADED")
    assert shown(second) == ("plain/g", Cause.FALLBACK)
    assert second is not None
    third = failed(way, second, "CONTEXT_LENGTH_EXCEEDED")
    assert shown(third) == ("b/long", Cause.FALLBACK)
    assert third is not None
    fourth = failed(way, third, "PROVIDER_AUTH")
    assert shown(fourth) == ("c/g", Cause.FALLBACK)
    assert fourth is not None
    assert failed(way, fourth, "PROVIDER_AUTH") is None


@pytest.mark.parametrize(
    ("more", "failure"),
    [
        ({"fallbacks": False}, {}),
        ({"retry_ambiguous": True}, {"output_began": True}),
        ({}, {"reason": "NETWORK_ERROR"}),
        ({"model": "a/m"}, {}),
    ],
)
def test_no_fallback_after_content_nor_unseen_work_nor_unasked(
    clock: ManualClock, more: dict[str, Any], failure: dict[str, Any]
) -> None:
    way = router(clock).way(catalogue_of(FALLBACKS), asked(**({"retries_max": 0} | more)))
    assert failed(way, way.first, **({"reason": "PROVIDER_OVERLOADED"} | failure)) is None


def test_a_full_or_broken_deployment_is_followed_by_the_fallback(clock: ManualClock) -> None:
    for reason in ("CIRCUIT_OPEN", "RATE_LIMITED"):
        way = router(clock).way(catalogue_of(FALLBACKS), asked(retries_max=0))
        assert shown(refused(way, way.first, reason=reason)) == ("plain/g", Cause.FALLBACK)
    way = router(clock).way(catalogue_of(FALLBACKS), asked())
    budget = Failure("BUDGET_EXCEEDED", "", dispatched=False)
    assert way.after(tried(way, way.first, None), budget) is None


def test_a_fallback_of_another_kind_gets_nothing_that_only_the_first_knows(clock: ManualClock) -> None:
    thought = Message("assistant", (ReasoningPart("hm", b"signed"), TextPart("so")))
    own = asked(messages=(thought,), parameters=Parameters(temperature=0.5, provider_options={"logit_bias": 1}))
    way = router(clock).way(catalogue_of(FALLBACKS), own)
    same = failed(way, way.first, "CONTEXT_LENGTH_EXCEEDED")
    assert same is not None
    assert way.call_for(same.deployment) is own
    other = failed(way, same, "CONTENT_POLICY")
    assert other is not None
    sent = way.call_for(other.deployment)
    assert (sent.parameters.provider_options, sent.parameters.temperature) == ({}, 0.5)
    assert sent.messages == (Message("assistant", (ReasoningPart("hm"), TextPart("so"))),)


PICTURE = (Message("user", (ImagePart(url="https://example.com/a.png"),)),)


@pytest.mark.parametrize(
    ("more", "field", "words"),
    [
        ({"messages": PICTURE}, "call.messages", "plain/x takes no pictures"),
        ({"tools": (Tool("look"),)}, "call.tools", "plain/x takes no tools"),
        ({"response_json_schema": "{}"}, "call.response_json_schema", "takes no answers by a JSON schema"),
    ],
)
def test_what_a_model_cannot_do_is_said_before_anything_is_sent(
    clock: ManualClock, more: dict[str, Any], field: str, words: str
) -> None:
    catalogue = catalogue_of(PROVIDERS)
    failure = raises_call_failed(lambda: router(clock).way(catalogue, call(model="plain/x", **more))).failure
    assert (failure.reason, failure.field, failure.dispatched) == ("INVALID_FIELD", field, False)
    assert words in failure.message
    # Where nothing is known, nothing is refused.
    assert router(clock).way(catalogue, call(model="a/x", **more)).first.deployment.name == "a/x"


def test_deployments_and_fallbacks_that_cannot_do_it_are_passed_over(clock: ManualClock) -> None:
    text = PROVIDERS + (
        "models: [{name: m, deployments: [{model: plain/m, weight: 9}, {model: sees/m}], "
        "fallbacks: {general: [plain/g, b/g]}}]"
    )
    made, catalogue = router(clock), catalogue_of(text)
    assert {made.way(catalogue, asked(messages=PICTURE)).first.deployment.name for _ in range(5)} == {"sees/m"}
    way = made.way(catalogue, asked(messages=PICTURE, retries_max=0))
    assert shown(failed(way, way.first, "PROVIDER_AUTH")) == ("b/g", Cause.FALLBACK)


def test_a_second_attempt_goes_to_another_deployment_or_the_same(clock: ManualClock) -> None:
    way = router(clock).way(catalogue_of(TWO), asked())
    beside = way.beside(tried(way, way.first, None))
    assert (beside.cause, beside.waits) == (Cause.HEDGE, False)
    assert beside.deployment != way.first.deployment
    alone = router(clock).way(catalogue_of(PROVIDERS), asked(model="a/m"))
    assert alone.beside(tried(alone, alone.first, None)).deployment == alone.first.deployment


def test_what_the_call_says_about_hedging_goes_before_the_catalogue(clock: ManualClock) -> None:
    catalogue: Catalogue = catalogue_of(TWO.replace("name: m,", "name: m, hedge_after_ms: 250,"))

    def after_ms(**more: Any) -> int | None:
        return router(clock).way(catalogue, asked(**more)).hedge_after_ms

    assert after_ms() == 250
    assert after_ms(hedge_after_ms=0) == 0
    assert after_ms(fallbacks=False) is None
    assert after_ms(fallbacks=False, hedge_after_ms=10) == 10
    assert after_ms(model="a/m") is None
