"""What makes calls equal, what is kept and for how long, and that it comes back as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.attempts import Completion
from services.gateway.cache import AnswerCache, CacheRules, LocalCache
from services.gateway.cache_key import cache_key, flight_key
from services.gateway.calls import (
    Call,
    ImagePart,
    Message,
    OptionValue,
    Owner,
    Parameters,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from services.gateway.catalogue import Deployment, Route
from services.gateway.chunks import (
    Finished,
    FinishReason,
    RawBytes,
    Read,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageSoFar,
)
from services.gateway.kept_answers import KeptAnswer, decode_kept, encode_kept, may_be_kept
from services.gateway.timing import Timing
from services.gateway.usage import TokenUsage
from services.runtime.clock import ManualClock
from tests.support.gateway import OWNER, call

DEPLOYMENT = Deployment("scripted", "model", 100, "")
USAGE = TokenUsage(input_tokens=7, cache_read_tokens=3, output_tokens=5, reasoning_tokens=2, measured=False)
TIMING = Timing(latency_us=900, queue_us=100, ttft_any_us=300, ttft_output_us=None, chunks=4, streamed=True)


def key_of(asked: Call, project_id: str = "prj_1", deployment: Deployment = DEPLOYMENT) -> str:
    return cache_key(project_id, Route(deployment.name, ((deployment, 1.0),)), asked)


def test_ids_tags_and_patience_make_no_difference() -> None:
    other = call(call_id="other", dispatch_nonce="n2", tags={"a": "b"}, run_id="run_2", timeout_ms=5, retries_max=3)
    assert key_of(call()) == key_of(other)


def test_the_catalogues_default_limit_is_the_same_as_the_limit_given() -> None:
    assert key_of(call(parameters=Parameters(max_output_tokens=100))) == key_of(call())


def test_the_order_of_options_makes_no_difference() -> None:
    one: dict[str, OptionValue] = {"a": 1, "b": [1, "x"]}
    two: dict[str, OptionValue] = {"b": [1, "x"], "a": 1}
    assert key_of(call(parameters=Parameters(provider_options=one))) == key_of(
        call(parameters=Parameters(provider_options=two))
    )


DIFFERENT: list[Call] = [
    call(),
    call("Why is the sky blue"),
    call(messages=(Message("system", (TextPart("Why is the sky blue?"),)),)),
    call(messages=(Message("user", (TextPart("Why is the sky "), TextPart("blue?"))),)),
    call(messages=(Message("user", (ImagePart(data=b"Why is the sky blue?", media_type="image/png"),)),)),
    call(parameters=Parameters(temperature=0.0)),
    call(parameters=Parameters(temperature=1.0)),
    call(parameters=Parameters(top_p=1.0)),
    call(parameters=Parameters(seed=0)),
    call(parameters=Parameters(seed=1)),
    call(parameters=Parameters(max_output_tokens=99)),
    call(parameters=Parameters(stop=("a", "b"))),
    call(parameters=Parameters(stop=("a, b",))),
    call(parameters=Parameters(frequency_penalty=1.0)),
    call(parameters=Parameters(presence_penalty=1.0)),
    call(parameters=Parameters(reasoning_effort="low")),
    call(parameters=Parameters(provider_options={"a": 1})),
    call(parameters=Parameters(provider_options={"a": 1.0})),
    call(parameters=Parameters(provider_options={"a": "1"})),
    call(parameters=Parameters(provider_options={"a": True})),
    call(tools=(Tool("search"),)),
    call(tools=(Tool("search"),), tool_choice="required"),
    call(response_json_schema="{}"),
    call(include_raw=True),
]


def test_everything_that_an_answer_depends_on_makes_a_difference() -> None:
    keys = [key_of(asked) for asked in DIFFERENT]
    keys += [key_of(call(), "prj_2"), key_of(call(), deployment=replace(DEPLOYMENT, model="other"))]
    assert len(set(keys)) == len(keys)


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_texts_are_told_apart_wherever_they_are_split(one: list[str], two: list[str]) -> None:
    keys = [key_of(call(messages=(Message("user", tuple(map(TextPart, texts))),))) for texts in (one, two)]
    assert (keys[0] == keys[1]) == (one == two)


@pytest.mark.parametrize(
    "other",
    [
        call(tags={"a": "b"}),
        call(run_id="run_2"),
        call(retries_max=1),
        call(retry_ambiguous=True),
        call(fallbacks=True),
        call(hedge_after_ms=0),
        call(ignore_circuit_breaker=True),
    ],
)
def test_only_calls_that_are_charged_and_tried_alike_share_an_attempt(other: Call) -> None:
    assert flight_key("k", call(), OWNER) != flight_key("k", other, OWNER)
    assert flight_key("k", call(), OWNER) != flight_key("k", call(), Owner("prj_1", "usr_2", "key_1"))
    assert flight_key("k", call(), OWNER) == flight_key("k", call(call_id="other", timeout_ms=5), OWNER)


READS = [
    Read("c/1", 10, [Started("model-1", "req-1", streamed=False)]),
    Read("c/1", 20, [ReasoningDelta("hm", b"\x00\xff"), RawBytes(b"\x00\xfe"), TextDelta("é\u0000")]),
    Read("c/1", 30, [ToolCallDelta(0, "t1", "search", '{"q":'), ToolCallDelta(0, arguments_json="1}")]),
    Read("c/1", 40, [UsageSoFar(TokenUsage(input_tokens=7)), Finished(FinishReason.TOOL_CALLS)]),
]
KEPT = KeptAnswer("c/1", 1_700_000_000_000_000, USAGE, TIMING, READS)


def test_a_kept_answer_comes_back_as_it_was() -> None:
    assert decode_kept(encode_kept(KEPT)) == KEPT


def test_a_kept_answer_as_one_to_another_call() -> None:
    completion = KEPT.completion(call(call_id="mine"))
    assert (completion.call_id, completion.provider_model) == ("mine", "model-1")
    assert (completion.usage, completion.timing) == (USAGE, TIMING)
    assert [type(part).__name__ for part in completion.parts] == ["ReasoningPart", "TextPart", "ToolCallPart"]
    assert completion.raw == b"\x00\xfe"
    assert completion.cost is not None
    assert (completion.cost.cost_nano_usd, completion.attempts) == (0, ())
    assert completion.reuse is not None
    assert (completion.reuse.source, completion.reuse.attempt_id) == ("cache", "c/1")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"[]",
        b"[9,1,2,3,4,5]",
        b"\xff",
        encode_kept(KEPT).replace(b"Text", b"X"),
        encode_kept(replace(KEPT, reads=READS[:3])),
    ],
)
def test_what_nobody_here_wrote_is_not_found(value: bytes) -> None:
    assert decode_kept(value) is None


def answer(reason: FinishReason = FinishReason.STOP, *parts: Any) -> Completion:
    values: dict[str, Any] = {"call_id": "c", "model": "m", "provider_model": "", "usage": USAGE, "timing": TIMING}
    return Completion(**values, parts=parts or (TextPart("no JSON"),), finish_reason=reason, cost=None, attempts=())


@pytest.mark.parametrize("reason", FinishReason)
def test_only_whole_answers_are_kept(reason: FinishReason) -> None:
    assert may_be_kept(call(), answer(reason)) is (reason in (FinishReason.STOP, FinishReason.TOOL_CALLS))


def test_json_that_is_none_is_not_kept() -> None:
    with_schema = call(response_json_schema="{}")
    assert not may_be_kept(with_schema, answer())
    assert may_be_kept(with_schema, answer(FinishReason.STOP, TextPart('{"a":'), TextPart("1}")))
    assert not may_be_kept(call(), answer(FinishReason.TOOL_CALLS, ToolCallPart("1", "search", '{"q":')))
    assert may_be_kept(with_schema, answer(FinishReason.TOOL_CALLS, ToolCallPart("1", "search", "{}")))


def test_an_answer_about_a_tools_error_is_not_kept() -> None:
    for is_error in (False, True):
        asked = call(messages=(Message("tool", (ToolResultPart("1", "no network", is_error=is_error),)),))
        assert may_be_kept(asked, answer()) is not is_error


async def test_memory_is_bounded_and_the_least_asked_for_goes() -> None:
    cache = LocalCache(ManualClock(), 2_000)
    for key in ("a", "b", "c"):
        await cache.put(key, b"x" * 200, 60)
    assert await cache.get("a") is not None
    await cache.put("d", b"x" * 200, 60)
    assert [key for key in "abcd" if await cache.get(key)] == ["a", "c", "d"]
    assert cache.size_bytes <= 2_000
    await cache.put("e", b"x" * 2_000, 60)
    assert (await cache.get("e"), cache.size_bytes) == (None, 0)


async def test_an_answer_ends_with_its_time_and_with_the_age_that_will_do() -> None:
    clock = ManualClock()
    cache = AnswerCache(LocalCache(clock, 10_000), clock, CacheRules(ttl_s=100))
    await cache.put("k", replace(KEPT, answered_at_us=clock.now_us()))
    clock.advance(50)
    assert await cache.get("k", 50) is not None
    assert await cache.get("k", 49) is None
    clock.advance(50)
    assert await cache.get("k", 0) is None


async def test_a_large_answer_is_not_kept() -> None:
    clock = ManualClock()
    store = LocalCache(clock, 10_000)
    await AnswerCache(store, clock, CacheRules(answer_max_bytes=len(encode_kept(KEPT)) - 1)).put("k", KEPT)
    assert store.size_bytes == 0
    await AnswerCache(store, clock, CacheRules(answer_max_bytes=len(encode_kept(KEPT)))).put("k", KEPT)
    assert store.size_bytes > 0
