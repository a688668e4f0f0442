"""Automations against a scripted TinyFish: run, async, SSE, cancel, failure, a goal not reached, and the bill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.gateway.v1 import automation_pb2, automation_pb2_grpc, gateway_pb2_grpc
from services.gateway.automations import AutomationRecord, SharedAutomations, cancel_topic
from services.gateway.calls import Owner
from services.gateway.redis_cache import RedisCache
from services.gateway.redis_link import RedisLink
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.redis_hints import RedisHints
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import Caller, refusal_of, rpc_call, token_of
from tests.support.provider_streams import JSON, SSE
from tests.support.replay import Asked, ReplayServer, Reply, replay_server

CATALOGUE = """
providers:
  - name: tinyfish
    kind: tinyfish
    base_url_variable: TINYFISH_BASE_URL
    run_path_variable: TINYFISH_AUTOMATION_ENDPOINT
    mock_mode_variable: TINYFISH_MOCK_MODE
    api_key_variable: TINYFISH_API_KEY
    poll_s: 0.01
    models: [{name: automation}]
"""
STEP_NANO_USD = 16_000_000
DONE = {"run_id": "run-1", "status": "COMPLETED", "result": {"price": 7}, "error": None, "num_of_steps": 3}
STREAM = (
    {"type": "STARTED", "runId": "run-1"},
    {"type": "STREAMING_URL", "runId": "run-1", "streamingUrl": "https://watch.example/1"},
    {"type": "PROGRESS", "runId": "run-1", "purpose": "Open the page"},
    {"type": "HEARTBEAT"},
    {"type": "PROGRESS", "runId": "run-1", "purpose": "Read the price"},
    {"type": "COMPLETE", "runId": "run-1", "status": "COMPLETED", "resultJson": {"price": 7}},
)


def answered(body: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, {**JSON, **headers}, (json.dumps(body).encode(),))


def streamed(*events: Any, **more: Any) -> Reply:
    return Reply(headers=SSE, pieces=tuple(f"data: {json.dumps(event)}\n\n".encode() for event in events), **more)


@dataclass
class World:
    """A gateway, its caller, and the TinyFish that it reaches; `script` answers the requests."""

    stub: Any
    caller: Caller
    tinyfish: ReplayServer

    def script(self, answer: Callable[[Asked], Reply]) -> None:
        self.tinyfish.script = answer

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.tinyfish.asked]

    async def run(self, **fields: Any) -> automation_pb2.AutomationRun:
        request = automation_pb2.RunAutomationRequest(automation=automation(**fields))
        answer: automation_pb2.RunAutomationResponse = await self.stub.RunAutomation(request, metadata=token_of())
        return answer.run

    async def start(self, **fields: Any) -> automation_pb2.AutomationRun:
        request = automation_pb2.StartAutomationRequest(automation=automation(**fields))
        answer: automation_pb2.StartAutomationResponse = await self.stub.StartAutomation(request, metadata=token_of())
        return answer.run

    async def get(self, call_id: str = "a", project_id: str = "prj_1") -> automation_pb2.AutomationRun:
        request = automation_pb2.GetAutomationRequest(call_id=call_id)
        metadata = token_of(project_id)
        answer: automation_pb2.GetAutomationResponse = await self.stub.GetAutomation(request, metadata=metadata)
        return answer.run

    async def cancel(self, call_id: str = "a", project_id: str = "prj_1") -> bool:
        request = automation_pb2.CancelAutomationRequest(call_id=call_id)
        return bool((await self.stub.CancelAutomation(request, metadata=token_of(project_id))).cancelled)

    async def ended(self, call_id: str = "a") -> automation_pb2.AutomationRun:
        async with asyncio.timeout(20):
            # The RPC is there to be asked again and again.
            while (run := await self.get(call_id)).state == automation_pb2.AUTOMATION_STATE_RUNNING:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return run

    def stream(self, **fields: Any) -> Any:
        request = automation_pb2.StreamAutomationRequest(automation=automation(**fields))
        return self.stub.StreamAutomation(request, metadata=token_of())


def automation(**fields: Any) -> automation_pb2.Automation:
    values: dict[str, Any] = {
        "call_id": "a",
        "url": "https://example.com",
        "goal": "Find the price",
        "timeout_ms": 20_000,
    }
    return automation_pb2.Automation(**values | fields)


async def opened(
    settings: GatewaySettings, cost: RunningServer, tmp_path: Path, environ: dict[str, str]
) -> AsyncIterator[World]:
    file = tmp_path / "catalogue.yaml"
    file.write_text(CATALOGUE)
    async with replay_server(lambda _: answered(DONE)) as tinyfish:
        environ = {"TINYFISH_BASE_URL": tinyfish.base_url, **environ}
        own = settings.model_copy(update={"catalogue_file": file, "automations_max": 2})
        async with (
            build(own, environ=environ) as gateway,
            grpc.aio.insecure_channel(gateway.address) as channel,
            grpc.aio.insecure_channel(cost.address) as costs,
        ):
            stub = automation_pb2_grpc.AutomationServiceStub(channel)
            yield World(stub, Caller(gateway_pb2_grpc.GatewayServiceStub(channel), costs), tinyfish)


@pytest.fixture
async def world(settings: GatewaySettings, cost: RunningServer, tmp_path: Path) -> AsyncIterator[World]:
    async for one in opened(settings, cost, tmp_path, {"TINYFISH_API_KEY": "secret"}):
        yield one


async def test_a_run_is_answered_and_paid_by_its_steps(world: World) -> None:
    run = await world.run()
    assert (run.provider_run_id, run.state) == ("run-1", automation_pb2.AUTOMATION_STATE_GOAL_REACHED)
    assert json.loads(run.raw) == DONE
    assert (run.usage.steps, run.cost.cost_nano_usd) == (3, 3 * STEP_NANO_USD)
    assert run.attempts[0].provider_request_id == "run-1"
    (asked,) = world.tinyfish.asked
    assert (asked.path, asked.headers["x-api-key"]) == ("/v1/automation/run", "secret")
    assert asked.json == {"url": "https://example.com", "goal": "Find the price"}
    assert (await world.caller.attempt_state("a/1")).state == hold_pb2.ATTEMPT_STATE_SETTLED


@pytest.mark.parametrize(
    "result",
    [None, {}, "", {"status": "failure", "reason": "no such page"}, {"success": False}, {"error": "captcha"}],
)
async def test_completed_without_reaching_the_goal_is_told_apart(world: World, result: Any) -> None:
    world.script(lambda _: answered({**DONE, "result": result}))
    run = await world.run()
    assert run.state == automation_pb2.AUTOMATION_STATE_GOAL_NOT_REACHED
    assert run.cost.cost_nano_usd == 3 * STEP_NANO_USD


async def test_a_run_that_failed_is_an_error_and_is_paid(world: World) -> None:
    world.script(lambda _: answered({**DONE, "status": "FAILED", "result": None, "error": {"message": "crashed"}}))
    refused, error = await refusal_of(world.run())
    assert (refused.reason, error.message, error.provider_request_id) == ("PROVIDER_ERROR", "crashed", "run-1")
    assert error.usage.steps == 3
    resolved = await world.caller.attempt_state("a/1")
    assert resolved.cost.cost_nano_usd == 3 * STEP_NANO_USD


@pytest.mark.parametrize(
    ("reply", "reason", "dispatched"),
    [
        (answered({"error": {"message": "slow down"}}, 429, **{"Retry-After": "2"}), "RATE_LIMITED", True),
        (answered({"error": "who?"}, 401), "PROVIDER_AUTH", True),
        (answered([1]), "PROVIDER_ERROR", True),
        (Reply(headers=JSON, pieces=(b'{"run',), cut=True), "STREAM_TRUNCATED", True),
        (answered({"run_id": "run-1", "status": "RUNNING"}), "STREAM_TRUNCATED", True),
    ],
)
async def test_what_is_no_run_is_no_success(world: World, reply: Reply, reason: str, dispatched: bool) -> None:
    world.script(lambda asked: reply if asked.path.endswith("/run") else answered({}))
    refused, error = await refusal_of(world.run())
    assert (refused.reason, error.dispatched) == (reason, dispatched)
    assert world.paths.count("/v1/automation/run") == 1


async def test_a_stream_tells_what_happens(world: World) -> None:
    world.script(lambda _: streamed(*STREAM))
    messages = [message async for message in world.stream()]
    assert [message.progress for message in messages if message.HasField("progress")] == [
        "Open the page",
        "Read the price",
    ]
    assert [message.streaming_url for message in messages if message.HasField("streaming_url")] == [
        "https://watch.example/1"
    ]
    run = messages[-1].finished
    assert (run.provider_run_id, run.state) == ("run-1", automation_pb2.AUTOMATION_STATE_GOAL_REACHED)
    # TinyFish's last event counts no steps: those that were seen are an estimate.
    assert (run.usage.steps, run.cost.cost_nano_usd) == (2, 2 * STEP_NANO_USD)
    assert json.loads(run.raw)["resultJson"] == {"price": 7}
    assert world.paths == ["/v1/automation/run-sse"]


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("events", range(len(STREAM)))
async def test_a_stream_that_stops_early_is_no_success(world: World, events: int, cut: bool) -> None:
    world.script(lambda asked: streamed(*STREAM[:events], cut=cut) if "sse" in asked.path else answered({}))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        [message async for message in world.stream()]
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    # A cut connection may take what was in flight with it; a body that ends has told the run's id.
    cancelled = "/v1/runs/run-1/cancel" in world.paths
    assert cancelled == (events > 0) or cut
    resolved = await world.caller.attempt_state("a/1")
    assert resolved.state == hold_pb2.ATTEMPT_STATE_SETTLED


async def test_an_error_in_a_stream_is_an_error(world: World) -> None:
    world.script(lambda _: streamed(*STREAM[:3], {"type": "ERROR", "message": "browser died"}))
    with pytest.raises(grpc.aio.AioRpcError, match="browser died"):
        [message async for message in world.stream()]


async def test_leaving_a_stream_cancels_the_run(world: World) -> None:
    told = asyncio.Event()

    def answer(asked: Asked) -> Reply:
        if "sse" in asked.path:
            return streamed(*STREAM[:3], hold=True)
        told.set()
        return answered({})

    world.script(answer)
    stream = world.stream()
    async for message in stream:
        if message.HasField("progress"):
            break
    stream.cancel()
    async with asyncio.timeout(20):
        await told.wait()
    assert world.paths[-1] == "/v1/runs/run-1/cancel"


async def test_a_started_run_is_followed_to_its_end(world: World) -> None:
    polls = 0

    def answer(asked: Asked) -> Reply:
        nonlocal polls
        if asked.path.endswith("run-async"):
            return answered({"run_id": "run-1"})
        polls += 1
        return answered(DONE if polls > 2 else {"run_id": "run-1", "status": "RUNNING"})

    world.script(answer)
    begun = await world.start()
    assert (begun.provider_run_id, begun.call_id) == ("run-1", "a")
    run = await world.ended()
    assert (run.state, run.usage.steps) == (automation_pb2.AUTOMATION_STATE_GOAL_REACHED, 3)
    assert set(world.paths) == {"/v1/automation/run-async", "/v1/runs/run-1"}
    refused, _ = await refusal_of(world.get(project_id="prj_2"))
    assert refused.reason == "NOT_FOUND"
    refused, _ = await refusal_of(world.start())
    assert refused.reason == "CALL_ALREADY_DISPATCHED"


async def test_a_started_run_is_cancelled_by_its_id(world: World) -> None:
    running = {"run_id": "run-1", "status": "RUNNING"}
    world.script(lambda asked: answered(running))
    await world.start()
    assert not await world.cancel(project_id="prj_2")
    assert await world.cancel()
    run = await world.ended()
    assert run.state == automation_pb2.AUTOMATION_STATE_CANCELLED
    assert world.paths[-1] == "/v1/runs/run-1/cancel"
    assert not await world.cancel()


async def test_the_number_of_started_runs_is_bounded(world: World) -> None:
    world.script(lambda asked: answered({"run_id": f"run-{len(world.paths)}", "status": "RUNNING"}))
    await world.start(call_id="a")
    await world.start(call_id="b")
    refused, _ = await refusal_of(world.start(call_id="c"))
    assert refused.reason == "OVERLOADED"
    await world.cancel("a")
    await world.ended("a")
    await world.start(call_id="c")


@pytest.fixture
async def replicas(
    settings: GatewaySettings, cost: RunningServer, tmp_path: Path, redis_url: str
) -> AsyncIterator[tuple[World, World]]:
    shared = settings.model_copy(update={"redis_url": redis_url})
    async for one in opened(shared, cost, tmp_path, {"TINYFISH_API_KEY": "secret"}):
        environ = {"TINYFISH_API_KEY": "secret", "TINYFISH_BASE_URL": one.tinyfish.base_url}
        async for other in opened(shared, cost, tmp_path, environ):
            other.tinyfish = one.tinyfish
            yield one, other


async def test_a_started_run_is_asked_about_and_cancelled_at_another_replica(replicas: tuple[World, World]) -> None:
    here, there = replicas
    here.script(lambda _: answered({"run_id": "run-1", "status": "RUNNING"}))
    await here.start()
    seen = await there.get()
    assert (seen.provider_run_id, seen.state) == ("run-1", automation_pb2.AUTOMATION_STATE_RUNNING)
    refused, _ = await refusal_of(there.get(project_id="prj_2"))
    assert refused.reason == "NOT_FOUND"
    assert not await there.cancel(project_id="prj_2")
    assert await there.cancel()
    for replica in replicas:
        assert (await replica.ended()).state == automation_pb2.AUTOMATION_STATE_CANCELLED
    assert here.paths.count("/v1/automation/run-async") == 1
    assert here.paths[-1] == "/v1/runs/run-1/cancel"
    assert not await there.cancel()


async def test_a_run_that_another_replica_waits_for_is_cancelled_and_said_to_be(replicas: tuple[World, World]) -> None:
    here, there = replicas
    here.script(lambda asked: streamed(*STREAM[:3], hold=True) if "sse" in asked.path else answered({}))
    stream = here.stream()
    async for message in stream:
        if message.HasField("progress"):
            break

    async def rest() -> None:
        async for _ in stream:
            pass

    assert await there.cancel()
    refused, _ = await refusal_of(rest())
    assert refused.reason == "CANCELLED"
    assert here.paths[-1] == "/v1/runs/run-1/cancel"


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_run_whose_replica_was_lost_is_followed_by_the_one_that_is_asked(
    replicas: tuple[World, World], redis_url: str, cancelled: bool
) -> None:
    here = replicas[0]
    report = automation_pb2.AutomationRun(
        call_id="a", provider_run_id="run-1", state=automation_pb2.AUTOMATION_STATE_RUNNING
    )
    lost = AutomationRecord(
        automation().SerializeToString(), report.SerializeToString(), "nonce-1", SYSTEM_CLOCK.now_us(), ended=False
    )
    async with RedisLink.open(redis_url) as link:
        cache = RedisCache(link)
        await SharedAutomations(cache, 60.0).put(Owner("prj_1"), "a", lost)
        await cache.close()
    if cancelled:
        here.script(lambda _: answered({"run_id": "run-1", "status": "RUNNING"}))
        assert await here.cancel()
    else:
        assert (await here.get()).state == automation_pb2.AUTOMATION_STATE_RUNNING
    states = {(await replica.ended()).state for replica in replicas}
    if cancelled:
        assert states == {automation_pb2.AUTOMATION_STATE_CANCELLED}
        assert here.paths[-1] == "/v1/runs/run-1/cancel"
    else:
        assert states == {automation_pb2.AUTOMATION_STATE_GOAL_REACHED}
        assert set(here.paths) == {"/v1/runs/run-1"}
        assert (await here.caller.attempt_state("a/1")).cost.cost_nano_usd == 3 * STEP_NANO_USD
    assert (await here.caller.attempt_state("a/1")).state == hold_pb2.ATTEMPT_STATE_SETTLED


async def test_hints_that_come_for_nothing_cancel_nothing(replicas: tuple[World, World], redis_url: str) -> None:
    here = replicas[0]
    here.script(lambda _: answered({"run_id": "run-1", "status": "RUNNING"}))
    await here.start()
    polls = len(here.paths)
    async with RedisHints.open(redis_url, "gateway") as hints:
        await hints.listening()
        hints.publish(cancel_topic(Owner("prj_1"), "a"))
        async with asyncio.timeout(20):
            while len(here.paths) < polls + 10:  # noqa: ASYNC110 (the peer's own polls are the clock)
                await asyncio.sleep(0.01)
    assert (await here.get()).state == automation_pb2.AUTOMATION_STATE_RUNNING


async def test_a_budget_holds_for_steps(world: World) -> None:
    await world.caller.limit_spending(10 * STEP_NANO_USD)
    refused, error = await refusal_of(world.run(steps_max=11))
    assert (refused.reason, error.dispatched) == ("BUDGET_EXCEEDED", False)
    assert world.paths == []
    assert (await world.run(steps_max=10)).usage.steps == 3


async def test_tinyfish_has_no_completions(world: World) -> None:
    refused, _ = await refusal_of(world.caller.complete(rpc_call(model="tinyfish/automation")))
    assert refused.reason == "INVALID_FIELD"


async def test_mock_mode_and_another_endpoint(settings: GatewaySettings, cost: RunningServer, tmp_path: Path) -> None:
    async for world in opened(settings, cost, tmp_path, {"TINYFISH_MOCK_MODE": "true"}):
        run = await world.run()
        assert (run.state, run.usage.steps, run.cost.cost_nano_usd) == (
            automation_pb2.AUTOMATION_STATE_GOAL_REACHED,
            0,
            0,
        )
        assert json.loads(run.raw)["mock"] is True
        assert world.paths == []
    environ = {"TINYFISH_API_KEY": "k", "TINYFISH_AUTOMATION_ENDPOINT": "/api/v1/automation/run"}
    async for world in opened(settings, cost, tmp_path, environ):
        await world.run(call_id="b")
        assert world.paths == ["/api/v1/automation/run"]


async def test_without_a_key_the_setting_is_named(
    settings: GatewaySettings, cost: RunningServer, tmp_path: Path
) -> None:
    async for world in opened(settings, cost, tmp_path, {}):
        refused, _ = await refusal_of(world.run())
        assert "TINYFISH_API_KEY" in refused.message
