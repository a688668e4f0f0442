"""The mock: deterministic, scriptable, and different where its models and parameters are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from services.gateway.calls import Call, Parameters, ProviderRequest, Tool
from services.gateway.chunks import Event, Finished, FinishReason, RawBytes, ReasoningDelta, ToolCallDelta, UsageSoFar
from services.gateway.failures import RULES
from services.gateway.providers.mock import MockFailed, MockProvider
from services.gateway.providers.mock_script import ERROR_KINDS, MOCK_MODELS
from services.gateway.usage import TokenUsage, estimate_tokens
from services.runtime.clock import ManualClock
from tests.support.gateway import call, collected, request, text_of

AT_ONCE = {"ttft_ms": 0.0, "tokens_per_second": 0.0}


async def answer(asked: Call | None = None, *, model: str = "instant", limit: int = 1_000) -> list[Event]:
    events, failed = await collected(
        MockProvider(AT_ONCE).stream(request(asked, model=model, max_output_tokens=limit), 0)
    )
    if failed is not None:
        raise failed
    return events


def options(**values: Any) -> Call:
    return call(parameters=Parameters(provider_options=values))


def usage_of(events: list[Event]) -> TokenUsage:
    (usage,) = (event.usage for event in events if isinstance(event, UsageSoFar))
    return usage


async def test_the_same_call_gets_the_same_answer() -> None:
    assert await answer() == await answer()


async def test_model_prompt_temperature_and_repeat_change_the_answer() -> None:
    texts = [text_of(await answer(model=model)) for model in MOCK_MODELS]
    texts.append(text_of(await answer(call("Why is grass green?"))))
    texts.append(text_of(await answer(call(call_id="run_1/8/1"))))
    texts += [text_of(await answer(call(parameters=Parameters(temperature=heat)))) for heat in (0.1, 1.0, 1.9)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("parameters", [Parameters(temperature=0.0), Parameters(seed=7)], ids=["greedy", "seeded"])
async def test_greedy_and_seeded_sampling_repeat_themselves(parameters: Parameters) -> None:
    first = await answer(call(call_id="run_1/1/1", parameters=parameters))
    second = await answer(call(call_id="run_1/2/1", parameters=parameters))
    assert text_of(first) == text_of(second)


async def test_larger_models_say_more_about_the_topic() -> None:
    prompt = "Compare glaciers and volcanoes as landscape architects."
    lengths, mentions = {}, {}
    for model in ("small", "medium", "large"):
        texts = [text_of(await answer(call(prompt, call_id=f"run/{cell}/1"), model=model)) for cell in range(30)]
        lengths[model] = sum(map(len, texts))
        mentions[model] = sum(text.count("glaciers") + text.count("volcanoes") for text in texts)
    assert lengths["small"] < lengths["medium"] < lengths["large"]
    assert mentions["small"] < mentions["medium"] < mentions["large"]


async def test_larger_models_get_more_sums_right() -> None:
    right = {}
    for model in ("small", "medium", "large"):
        asked = [call(f"What is {n} + {n * 3}? Answer with the number only.", call_id=f"run/{n}/1") for n in range(60)]
        answers = [text_of(await answer(one, model=model)) for one in asked]
        right[model] = sum(said == str(n * 4) for n, said in enumerate(answers))
    assert right["small"] < right["medium"] < right["large"]


async def test_chunks_usage_and_length() -> None:
    text = "abcd" * 10
    events = await answer(options(text=text, chunk_size=3), limit=8)
    assert text_of(events) == text[:32]
    assert len([event for event in events if hasattr(event, "text")]) == 3
    assert events[-1] == Finished(FinishReason.LENGTH)
    assert usage_of(events).output_tokens == 8


async def test_a_stop_text_ends_the_answer() -> None:
    parameters = Parameters(stop=("END",), provider_options={"text": "one END two"})
    assert text_of(await answer(call(parameters=parameters))) == "one "


async def test_usage_can_be_scripted() -> None:
    events = await answer(
        options(text="x", input_tokens=1_000, output_tokens=50, cached_tokens=800, reasoning_tokens=9)
    )
    assert usage_of(events) == TokenUsage(
        input_tokens=1_000, cache_read_tokens=800, output_tokens=50, reasoning_tokens=9
    )
    assert not any(isinstance(event, UsageSoFar) for event in await answer(options(report_usage=False)))


async def test_reasoning_comes_first_and_counts_as_output() -> None:
    events = await answer(options(text="blue", reasoning="hmm hmm"))
    kinds = [type(event) for event in events]
    assert kinds.index(ReasoningDelta) < [hasattr(event, "text") for event in events].index(True) + 2
    assert usage_of(events).output_tokens == estimate_tokens("blue") + estimate_tokens("hmm hmm")
    assert usage_of(events).reasoning_tokens == estimate_tokens("hmm hmm")


async def test_a_tool_is_called_with_arguments_of_its_schema() -> None:
    schema = json.dumps({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}})
    events = await answer(call(tools=(Tool("weather", parameters_json_schema=schema),), tool_choice="required"))
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert deltas[0].name == "weather"
    arguments = json.loads("".join(delta.arguments_json for delta in deltas))
    assert isinstance(arguments["city"], str)
    assert isinstance(arguments["days"], int)
    assert events[-1] == Finished(FinishReason.TOOL_CALLS)


async def test_a_schema_is_followed() -> None:
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "fixed": {"const": 3},
            "sizes": {"type": "array", "items": {"type": "number", "minimum": 5}},
            "fine": {"type": ["boolean", "null"]},
        },
    }
    value = json.loads(text_of(await answer(call(response_json_schema=json.dumps(schema)))))
    assert value["kind"] in ("a", "b")
    assert value["fixed"] == 3
    assert value["sizes"][0] >= 5
    assert isinstance(value["fine"], bool)


@pytest.mark.parametrize("schema", ["auto", "[]", '{"a": 1e999}'])
async def test_what_is_no_schema_is_refused_and_nothing_is_sent(schema: str) -> None:
    tools = (Tool("first"), Tool("weather", parameters_json_schema=schema))
    of_tool = call(tools=tools, tool_choice="weather"), "call.tools[1].parameters_json_schema"
    of_answer = call(response_json_schema=schema), "call.response_json_schema"
    for asked, field in (of_tool, of_answer):
        events, failed = await collected(MockProvider().stream(request(asked, model="instant"), 0))
        assert failed is not None
        assert events == []
        assert (failed.failure.reason, failed.failure.field) == ("INVALID_FIELD", field)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": ["a"]},
        {"type": {"a": 1}},
        {"type": "integer", "minimum": "low", "maximum": None},
        {"type": []},
        {"enum": {}},
    ],
)
async def test_an_odd_schema_is_answered_with_json(schema: dict[str, Any]) -> None:
    json.loads(text_of(await answer(call(response_json_schema=json.dumps(schema)))))


@pytest.mark.parametrize("kind", ERROR_KINDS)
async def test_every_kind_of_error(kind: str) -> None:
    with pytest.raises(MockFailed) as failed:
        await answer(options(error_rate=1.0, error_kinds=kind))
    assert failed.value.failure.reason in RULES
    assert failed.value.failure.dispatched
    assert (failed.value.fault is None) == (kind == "network")


async def test_error_and_truncation_rates_are_met() -> None:
    provider = MockProvider(AT_ONCE)
    failures = cuts = 0
    for cell in range(400):
        asked = replace(options(error_rate=0.2, truncation_rate=0.25), call_id=f"run/{cell}/1")
        events, failed = await collected(provider.stream(request(asked, model="instant"), 0))
        failures += failed is not None
        cuts += failed is None and not any(isinstance(event, Finished) for event in events)
    assert 50 < failures < 110
    assert 50 < cuts < 110


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("tfft_ms", 1, "unknown option"),
        ("ttft_ms", "soon", "expected float"),
        ("ttft_ms", -1, "expected 0"),
        ("error_rate", 1.5, "expected 0 - 1"),
        ("chunk_size", 0, "at least 1"),
        ("error_kinds", "boredom", "not one of"),
        ("report_usage", 1, "expected bool"),
    ],
)
async def test_a_wrong_option_is_named_and_nothing_is_sent(name: str, value: object, says: str) -> None:
    events, failed = await collected(MockProvider().stream(request(options(**{name: value}), model="instant"), 0))
    assert failed is not None
    assert events == []
    assert (failed.failure.reason, failed.failure.dispatched) == ("INVALID_FIELD", False)
    assert name in failed.failure.field
    assert says in failed.failure.message


async def test_an_unknown_model_is_refused() -> None:
    _, failed = await collected(MockProvider().stream(ProviderRequest("a/1", "huge", call(), 10), 0))
    assert failed is not None
    assert failed.failure.reason == "MODEL_NOT_FOUND"


async def test_calls_beyond_those_it_takes_at_once_are_refused_until_one_ends() -> None:
    provider = MockProvider(calls_at_once=2)
    streams = [provider.stream(request(options(ttft_ms=60_000), model="instant"), 0) for _ in range(2)]
    for stream in streams:
        await anext(stream)

    events, failed = await collected(provider.stream(request(call(), model="instant"), 0))
    assert failed is not None
    assert (events, failed.failure.reason, failed.failure.retry_after_ms) == ([], "RATE_LIMITED", 1_000)

    await streams[0].aclose()
    assert (await collected(provider.stream(request(call(), model="instant"), 0)))[1] is None
    await streams[1].aclose()


async def test_a_paced_answer_is_the_same_answer() -> None:
    paced = options(ttft_ms=5, tokens_per_second=500_000, chunk_size=2)
    # On a clock that stands still no chunk is late, so that each is read by itself.
    provider = MockProvider(clock=ManualClock())
    reads = [read async for read in provider.stream(request(paced, model="instant"), 0)]
    assert len(reads) > 3
    at_once = options(ttft_ms=0, tokens_per_second=0, chunk_size=2)
    assert text_of([event for read in reads for event in read]) == text_of(await answer(at_once))


async def test_raw_is_kept_where_asked_for() -> None:
    events = await answer(replace(options(text="hello"), include_raw=True))
    (raw,) = (event.data for event in events if isinstance(event, RawBytes))
    assert json.loads(raw)["text"] == "hello"
