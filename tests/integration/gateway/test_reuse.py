"""Answers that are used again, over gRPC, beside a real cost service."""

from __future__ import annotations

import asyncio

from llmlab.api.gateway.v1 import gateway_pb2
from tests.support.gateway_rpc import Caller, options, rpc_call

REFRESH = gateway_pb2.CacheControl(mode=gateway_pb2.CACHE_MODE_REFRESH)
USE = gateway_pb2.CacheControl(mode=gateway_pb2.CACHE_MODE_USE)


def deterministic(text: str = "Why is the sky blue?", call_id: str = "", **more: object) -> gateway_pb2.Call:
    parameters = options(ttft_ms=20.0, tokens_per_second=2_000.0)
    parameters.temperature = 0
    return rpc_call(text, call_id=call_id, model="mock/small", parameters=parameters, **more)


async def test_a_deterministic_call_is_paid_once_and_replayed_as_it_was(caller: Caller) -> None:
    first = await caller.stream(deterministic(call_id="first"))
    again = await caller.stream(deterministic(call_id="again"))
    assert again[1:-1] == first[1:-1]
    assert again[0].started == gateway_pb2.Started(call_id="again", attempt_id="first/1", provider_model="small")
    original, replayed = first[-1].finished, again[-1].finished
    assert (replayed.usage, replayed.timing) == (original.usage, original.timing)
    assert not original.HasField("reuse")
    assert (replayed.reuse.source, replayed.reuse.attempt_id) == (gateway_pb2.REUSE_SOURCE_CACHE, "first/1")
    assert replayed.reuse.answered_at.ToMicroseconds() > 0
    assert replayed.HasField("cost")
    assert (replayed.cost.cost_nano_usd, len(replayed.attempts)) == (0, 0)
    whole = await caller.complete(deterministic(call_id="whole"))
    assert whole.parts[0].text == "".join(chunk.text for chunk in first)
    assert (await caller.spend()).total.calls == 1


async def test_a_hundred_equal_calls_are_paid_once(caller: Caller) -> None:
    answers = await asyncio.gather(*(caller.complete(deterministic("A crowd")) for _ in range(100)))
    assert len({answer.parts[0].text for answer in answers}) == 1
    assert sum(len(answer.attempts) for answer in answers) == 1
    assert (await caller.spend()).total.calls == 1


async def test_runs_are_answered_anew_unless_they_ask_for_the_cache(caller: Caller) -> None:
    for number in range(2):
        outcome = (await caller.batch(deterministic(call_id=f"run/{number}/1")))[f"run/{number}/1"]
        assert not outcome.completion.HasField("reuse")
    await caller.batch(deterministic(call_id="run/2/1", cache=USE))
    outcome = (await caller.batch(deterministic(call_id="run/3/1", cache=USE)))["run/3/1"]
    assert outcome.completion.reuse.attempt_id == "run/2/1/1"
    refreshed = await caller.complete(deterministic(call_id="new", cache=REFRESH))
    assert not refreshed.HasField("reuse")
    assert (await caller.complete(deterministic())).reuse.attempt_id == "new/1"
