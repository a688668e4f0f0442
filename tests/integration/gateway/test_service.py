"""The gateway's RPCs over real gRPC, with holds and settlements at a real cost service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from llmlab.api.common.v1 import content_pb2, error_pb2, usage_pb2
from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from services.runtime import failpoints
from services.runtime.server import RunningServer
from services.runtime.settings import SettingsError
from tests.support.gateway_rpc import SERVICE_KEY, Caller, options, refusal_of, rpc_call, token_of


async def test_a_completion_is_answered_held_settled_and_priced(caller: Caller) -> None:
    completion = await caller.complete(rpc_call(call_id="run_1/7/1", model="mock/small", tags={"feature": "search"}))
    assert completion.call_id == "run_1/7/1"
    assert completion.model == "mock/small"
    assert completion.parts[0].text
    assert completion.finish_reason == gateway_pb2.FINISH_REASON_STOP
    assert completion.usage.source == usage_pb2.USAGE_SOURCE_MEASURED
    assert completion.timing.latency_us >= completion.timing.ttft_output_us > 0
    assert completion.timing.streamed
    assert completion.cost.cost_nano_usd > 0
    (attempt,) = completion.attempts
    assert attempt.attempt_id == "run_1/7/1/1"
    assert attempt.started_at.seconds > 0
    assert attempt.cost == completion.cost
    resolved = await caller.attempt_state("run_1/7/1/1")
    assert resolved.state == hold_pb2.ATTEMPT_STATE_SETTLED
    assert resolved.cost.cost_nano_usd == completion.cost.cost_nano_usd
    spend = await caller.spend()
    assert (spend.total.calls, spend.total.cost.cost_nano_usd) == (1, completion.cost.cost_nano_usd)
    assert spend.held_nano_usd == 0


async def test_the_gateway_mints_ids_that_are_left_out(caller: Caller) -> None:
    first, second = [await caller.complete(rpc_call()) for _ in range(2)]
    assert first.call_id.startswith("call_")
    assert first.call_id != second.call_id


async def test_the_unary_answer_is_the_collected_stream(caller: Caller) -> None:
    call = rpc_call(call_id="s/1", model="mock/large", parameters=options(reasoning="Let me think."))
    chunks = await caller.stream(call)
    kinds = [chunk.WhichOneof("event") for chunk in chunks]
    assert kinds[0] == "started"
    assert chunks[0].started.attempt_id == "s/1/1"
    assert kinds[-1] == "finished"
    assert set(kinds[1:-1]) == {"text", "reasoning", "usage"}
    offsets = [chunk.offset_us for chunk in chunks]
    assert offsets == sorted(offsets)
    end = chunks[-1].finished
    assert not end.parts
    assert end.cost.cost_nano_usd > 0
    call.call_id = "u/1"
    unary = await caller.complete(call)
    assert "".join(chunk.text for chunk in chunks) == unary.parts[-1].text
    assert unary.parts[0].reasoning.text == "Let me think."
    assert unary.usage == end.usage


async def test_tools_pictures_and_history_pass_both_ways(caller: Caller) -> None:
    part = content_pb2.ContentPart
    history = [
        content_pb2.Message(role=content_pb2.ROLE_SYSTEM, parts=[part(text="Be brief.")]),
        content_pb2.Message(
            role=content_pb2.ROLE_USER,
            parts=[part(image=content_pb2.Image(data=b"png", media_type="image/png")), part(text="What is this?")],
        ),
        content_pb2.Message(
            role=content_pb2.ROLE_ASSISTANT,
            parts=[
                part(reasoning=content_pb2.Reasoning(text="Hm.", provider_data=b"opaque")),
                part(tool_call=content_pb2.ToolCall(id="t1", name="look", arguments_json="{}")),
            ],
        ),
        content_pb2.Message(
            role=content_pb2.ROLE_TOOL,
            parts=[part(tool_result=content_pb2.ToolResult(tool_call_id="t1", text="a cat"))],
        ),
    ]
    tool = gateway_pb2.Tool(name="look", parameters_json_schema='{"properties": {"at": {"type": "string"}}}')
    call = gateway_pb2.Call(model="mock/instant", messages=history, tools=[tool], tool_choice="look")
    call.parameters.CopyFrom(options(report_usage=True, error_kinds=["auth", "billing"]))
    unary = await caller.complete(call)
    assert unary.finish_reason == gateway_pb2.FINISH_REASON_TOOL_CALLS
    asked = unary.parts[0].tool_call
    assert asked.name == "look"
    assert "at" in json.loads(asked.arguments_json)
    # The picture is most of the input.
    assert unary.usage.input_tokens > 1_000
    deltas = [chunk.tool_call for chunk in await caller.stream(call) if chunk.HasField("tool_call")]
    assert deltas[0].name == "look"
    assert deltas[0].id
    assert "at" in json.loads("".join(delta.arguments_json for delta in deltas))


async def test_a_batch_answers_every_call_with_its_own_outcome(caller: Caller) -> None:
    good = [rpc_call(call_id=f"run_1/{cell}/1", model="mock/small") for cell in range(60)]
    bad = [
        rpc_call(call_id="bad/model", model="mock/none"),
        rpc_call(call_id="bad/key", model="openai/gpt-4o"),
        rpc_call(call_id="bad/provider", parameters=options(error_rate=1.0, error_kinds="rate_limit")),
        rpc_call(call_id="bad/cut", parameters=options(truncation_rate=1.0, text="x" * 100, chunk_size=5)),
    ]
    outcomes = await caller.batch(*good, *bad)
    assert len(outcomes) == 64
    for call in good:
        completion = outcomes[call.call_id].completion
        assert completion.parts[0].text
        assert completion.cost.cost_nano_usd > 0
    reasons = {name: outcomes[name].error for name in ("bad/model", "bad/key", "bad/provider", "bad/cut")}
    assert reasons["bad/model"].reason == error_pb2.ERROR_REASON_MODEL_NOT_FOUND
    assert reasons["bad/key"].reason == error_pb2.ERROR_REASON_PROVIDER_NOT_CONFIGURED
    assert "OPENAI_API_KEY" in reasons["bad/key"].message
    assert not reasons["bad/model"].dispatched
    assert not reasons["bad/key"].dispatched
    limited = reasons["bad/provider"]
    assert (limited.reason, limited.grpc_code) == (error_pb2.ERROR_REASON_RATE_LIMITED, 8)
    assert (limited.retryable, limited.retry_after_ms, limited.dispatched) == (True, 1_000, True)
    assert limited.error_class == error_pb2.ERROR_CLASS_RATE_LIMIT
    cut = reasons["bad/cut"]
    assert (cut.reason, cut.partial_text) == (error_pb2.ERROR_REASON_STREAM_TRUNCATED, "x" * 40)
    assert cut.usage.source == usage_pb2.USAGE_SOURCE_ESTIMATED
    assert outcomes["bad/cut"].attempts[0].cost.cost_nano_usd > 0
    assert (await caller.spend()).held_nano_usd == 0


async def test_outcomes_of_a_batch_come_as_they_finish(caller: Caller) -> None:
    slow = rpc_call(call_id="slow", parameters=options(ttft_ms=600_000, tokens_per_second=1))
    request = gateway_pb2.CompleteBatchRequest(calls=[slow, rpc_call(call_id="fast")])
    stream = caller.stub.CompleteBatch(request, metadata=token_of())
    messages = aiter(stream)
    first = await anext(messages)
    assert [outcome.call_id for outcome in first.outcomes] == ["fast"]
    cancel = gateway_pb2.CancelCallsRequest(call_ids=["slow", "unknown"])
    answer = await caller.stub.CancelCalls(cancel, metadata=token_of())
    assert list(answer.cancelled_call_ids) == ["slow"]
    second = await anext(messages)
    assert second.outcomes[0].error.reason == error_pb2.ERROR_REASON_CANCELLED
    assert second.outcomes[0].error.dispatched
    assert [message async for message in messages] == []
    assert (await caller.attempt_state("slow/1")).state == hold_pb2.ATTEMPT_STATE_SETTLED


async def test_others_cannot_cancel_a_projects_calls(caller: Caller) -> None:
    slow = rpc_call(call_id="slow", parameters=options(ttft_ms=600_000))
    request = gateway_pb2.CompleteBatchRequest(calls=[slow, rpc_call(call_id="fast")])
    stream = caller.stub.CompleteBatch(request, metadata=token_of())
    await anext(aiter(stream))
    cancel = gateway_pb2.CancelCallsRequest(call_ids=["slow"])
    answer = await caller.stub.CancelCalls(cancel, metadata=token_of("prj_2"))
    assert list(answer.cancelled_call_ids) == []
    stream.cancel()


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_a_failure_is_a_status_with_the_call_error(caller: Caller, *, streamed: bool) -> None:
    call = rpc_call(call_id="c/1", parameters=options(truncation_rate=1.0, text="x" * 4_000))
    refused, error = await refusal_of(caller.stream(call) if streamed else caller.complete(call))
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "STREAM_TRUNCATED")
    assert error.reason == error_pb2.ERROR_REASON_STREAM_TRUNCATED
    assert error.dispatched
    assert error.partial_text.startswith("xxx")
    assert error.usage.output_tokens > 0
    assert refused.metadata["call_id"] == "c/1"


async def test_a_rate_limit_says_when_to_come_back(caller: Caller) -> None:
    call = rpc_call(parameters=options(error_rate=1.0, error_kinds="rate_limit"))
    refused, _ = await refusal_of(caller.complete(call))
    assert (refused.code, refused.retry_after_ms) == ("RESOURCE_EXHAUSTED", 1_000)


@pytest.mark.parametrize(
    ("call", "code", "field"),
    [
        (rpc_call(model="mock/none"), "NOT_FOUND", "call.model"),
        (rpc_call(model="anthropic/claude-opus-5"), "FAILED_PRECONDITION", "call.model"),
        (rpc_call(model=""), "INVALID_ARGUMENT", "call.model"),
        (rpc_call(tool_choice="hammer"), "INVALID_ARGUMENT", "call.tool_choice"),
        (rpc_call(parameters=options(tfft_ms=1)), "INVALID_ARGUMENT", "call.parameters.provider_options['tfft_ms']"),
        (rpc_call(call_id="no spaces"), "INVALID_ARGUMENT", "call.call_id"),
        (gateway_pb2.Call(model="mock/small"), "INVALID_ARGUMENT", "call.messages"),
        (
            gateway_pb2.Call(
                model="mock/small",
                messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.ContentPart()])],
            ),
            "INVALID_ARGUMENT",
            "call.messages[0].parts",
        ),
    ],
)
async def test_bad_input_names_the_field_and_spends_nothing(
    caller: Caller, call: gateway_pb2.Call, code: str, field: str
) -> None:
    refused, _ = await refusal_of(caller.complete(call))
    assert refused.code == code
    assert refused.field.startswith(field)
    spend = await caller.spend()
    assert (spend.total.calls, spend.held_nano_usd) == (0, 0)


async def test_a_batch_needs_distinct_ids(caller: Caller) -> None:
    for calls, field in (
        ([rpc_call(call_id="a"), rpc_call()], "calls[1].call_id"),
        ([rpc_call(call_id="a"), rpc_call(call_id="a")], "calls[1].call_id"),
    ):
        refused, _ = await refusal_of(caller.batch(*calls))
        assert (refused.code, refused.field) == ("INVALID_ARGUMENT", field)


async def test_a_budget_stops_a_call_before_it_is_sent(caller: Caller) -> None:
    await caller.limit_spending(1_000)
    refused, error = await refusal_of(caller.complete(rpc_call(call_id="c/1", model="mock/large")))
    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED")
    assert refused.retry_after_ms is None
    assert not error.dispatched
    assert (await caller.spend()).total.calls == 0


@pytest.mark.parametrize(
    "scope",
    [{"run_id": "run_1"}, {"tag": "team=research"}, {"model": "mock/large"}, {"run_id": "run_1", "key_id": "key_1"}],
)
async def test_a_budget_stops_the_calls_of_its_scope_and_spares_others(caller: Caller, scope: dict[str, str]) -> None:
    await caller.limit_spending(1_000, **scope)
    matching = rpc_call(call_id="a/1", model="mock/large", run_id="run_1", tags={"team": "research"})
    other = rpc_call(call_id="b/1", model="mock/small", run_id="run_2", tags={"team": "sales"})
    outcomes = await caller.batch(matching, other)
    assert outcomes["a/1"].error.reason == error_pb2.ERROR_REASON_BUDGET_EXCEEDED
    assert not outcomes["a/1"].error.dispatched
    assert outcomes["b/1"].HasField("completion")
    matching.call_id, other.call_id = "a/2", "b/2"
    refused, _ = await refusal_of(caller.complete(matching))
    assert refused.reason == "BUDGET_EXCEEDED"
    assert (await caller.complete(other)).cost.cost_nano_usd > 0
    assert (await caller.spend()).total.calls == 2


@pytest.mark.parametrize("scope", [{"user_id": "usr_1"}, {"key_id": "key_1"}])
async def test_a_budget_of_a_user_or_a_key_stops_their_calls(caller: Caller, scope: dict[str, str]) -> None:
    await caller.limit_spending(1_000, **scope)
    refused, _ = await refusal_of(caller.complete(rpc_call(model="mock/large")))
    assert refused.reason == "BUDGET_EXCEEDED"


async def test_a_budget_of_somebody_else_stops_nothing(caller: Caller) -> None:
    await caller.limit_spending(1, user_id="usr_2")
    await caller.complete(rpc_call(model="mock/small"))


async def test_a_call_that_was_dispatched_before_is_not_sent_again(caller: Caller) -> None:
    await caller.complete(rpc_call(call_id="c/1", dispatch_nonce="one"))
    refused, error = await refusal_of(caller.complete(rpc_call(call_id="c/1", dispatch_nonce="two")))
    assert refused.reason in ("CALL_ALREADY_DISPATCHED", "HOLD_RESOLVED")
    assert not error.dispatched
    assert (await caller.spend()).total.calls == 1


async def test_the_calls_deadline_ends_it_with_an_outcome(caller: Caller) -> None:
    call = rpc_call(call_id="c/1", timeout_ms=1_500, parameters=options(ttft_ms=600_000))
    refused, error = await refusal_of(caller.complete(call))
    assert (refused.code, error.dispatched) == ("DEADLINE_EXCEEDED", True)
    assert (await caller.attempt_state("c/1/1")).state == hold_pb2.ATTEMPT_STATE_SETTLED


async def test_the_rpcs_deadline_holds_beside_the_calls(caller: Caller) -> None:
    call = rpc_call(call_id="c/1", parameters=options(ttft_ms=600_000))
    refused, error = await refusal_of(caller.complete(call, timeout=1.5))
    # The call ends a little before its RPC, so that its outcome is still told.
    assert (refused.code, error.reason) == ("DEADLINE_EXCEEDED", error_pb2.ERROR_REASON_DEADLINE_EXCEEDED)


async def test_leaving_a_stream_stops_the_call_and_settles_what_was_sent(caller: Caller) -> None:
    text = "abcd" * 5_000
    call = rpc_call(call_id="c/1", parameters=options(text=text, tokens_per_second=2_000, chunk_size=1))
    stream = caller.stub.StreamComplete(gateway_pb2.StreamCompleteRequest(call=call), metadata=token_of())
    received = 0
    async for message in stream:
        received += sum(len(chunk.text) for chunk in message.chunks)
        if received > 400:
            break
    stream.cancel()
    async with asyncio.timeout(20):
        # Nobody is told when the gateway has settled for a caller who left: ask.
        while (resolved := await caller.attempt_state("c/1/1")).state != hold_pb2.ATTEMPT_STATE_SETTLED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    # Not less than the caller got, and far from the whole answer.
    assert received / 4 <= resolved.usage.output_tokens < len(text) / 8
    assert resolved.usage.source == usage_pb2.USAGE_SOURCE_ESTIMATED


async def test_nobody_calls_without_a_credential_or_the_permission(caller: Caller) -> None:
    refused, _ = await refusal_of(caller.complete(rpc_call(), metadata=()))
    assert refused.code == "UNAUTHENTICATED"


async def test_the_mocks_raw_answer_on_request(caller: Caller) -> None:
    completion = await caller.complete(rpc_call(include_raw=True))
    assert completion.parts[0].text.encode() in completion.raw
    assert (await caller.complete(rpc_call())).raw == b""


async def test_models_are_listed_by_name_in_pages(caller: Caller) -> None:
    names: list[str] = []
    token = ""
    while True:
        request = gateway_pb2.ListModelsRequest(page_size=5, page_token=token)
        answer = await caller.stub.ListModels(request, metadata=token_of())
        names += [model.name for model in answer.models]
        token = answer.next_page_token
        if not token:
            break
    assert names == sorted(names)
    assert {"mock/small", "mock/medium", "mock/large", "openai/gpt-4o-mini", "openrouter/*"} <= set(names)
    one = await caller.stub.ListModels(gateway_pb2.ListModelsRequest(provider="openai"), metadata=token_of())
    assert {model.missing_setting for model in one.models} == {"OPENAI_API_KEY"}
    refused, _ = await refusal_of(
        caller.stub.ListModels(gateway_pb2.ListModelsRequest(page_token="x"), metadata=token_of())
    )
    assert refused.reason == "INVALID_PAGE_TOKEN"


async def test_without_the_cost_service_nothing_is_sent(settings: GatewaySettings) -> None:
    alone = settings.model_copy(update={"cost_target": "127.0.0.1:9", "cost_timeout_ms": 200})
    async with build(alone, environ={}) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        request = gateway_pb2.CompleteRequest(call=rpc_call())
        refused, error = await refusal_of(stub.Complete(request, metadata=token_of()))
    assert (refused.reason, error.dispatched) == ("DEPENDENCY_UNAVAILABLE", False)


@pytest.mark.parametrize("point", ["before_hold", "after_hold", "during_call", "before_settle", "after_settle"])
async def test_a_fault_at_any_failpoint_leaves_the_other_calls_alone(caller: Caller, point: str) -> None:
    armed = failpoints.arm(f"gateway.{point}=error@2")
    try:
        outcomes = await caller.batch(*(rpc_call(call_id=f"c/{number}") for number in range(4)))
    finally:
        failpoints.arm("")
    assert armed.hits[f"gateway.{point}"] >= 2
    failed = [outcome for outcome in outcomes.values() if outcome.HasField("error")]
    assert [outcome.error.reason for outcome in failed] == [error_pb2.ERROR_REASON_INTERNAL]


async def test_a_bad_catalogue_is_one_line_that_names_the_setting(settings: GatewaySettings, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("providers: 7")
    with pytest.raises(SettingsError, match="CATALOGUE_FILE"):
        async with build(settings.model_copy(update={"catalogue_file": file}), environ={}):
            pass


async def test_the_server_says_which_providers_are_ready(gateway: RunningServer) -> None:
    from llmlab.api.common.v1 import server_pb2, server_pb2_grpc

    async with grpc.aio.insecure_channel(gateway.address) as channel:
        info = await server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    assert "provider:mock" in info.features


async def test_without_accounting_calls_are_answered_and_count_as_unpriced(tmp_path: Path) -> None:
    settings = GatewaySettings(port=0, home=tmp_path / "home", auth_service_key=SERVICE_KEY, accounting="off")
    async with build(settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        caller = Caller(gateway_pb2_grpc.GatewayServiceStub(channel), channel)
        completion = await caller.complete(rpc_call(model="mock/small"))
    assert completion.parts[0].text
    assert (completion.cost.cost_nano_usd, completion.cost.unpriced_calls) == (0, 1)
