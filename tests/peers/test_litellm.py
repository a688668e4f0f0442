"""A LiteLLM proxy as upstream, in each format that it speaks: software that nobody here wrote.

Opt-in, because it installs a large package: `make test-peers`. The proxy answers by itself ("canned"), or passes calls
on to the mock provider and translates its answers ("passed-on"), so that its own streams in every format are read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import pytest

from llmlab.api.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import build
from tests.support.cluster import free_ports, mock_provider
from tests.support.gateway_rpc import SERVICE_KEY, Caller, options, refusal_of, rpc_call
from tests.support.processes import start_child

LITELLM = os.environ.get("LLMLAB_TEST_LITELLM", "")
START_TIMEOUT_S = 180.0
KEY = "sk-of-the-peer"
CANNED = "Blue light is scattered most."
CONFIG = """
model_list:
  - model_name: canned
    litellm_params: {{model: openai/gpt-4o-mini, api_key: none, mock_response: "{canned}"}}
  - model_name: passed-on
    litellm_params: {{model: openai/instant, api_base: "{mock}", api_key: none}}
  - model_name: limited
    litellm_params: {{model: openai/gpt-4o-mini, api_key: none, mock_response: "litellm.RateLimitError"}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false, drop_params: true, num_retries: 0}}
router_settings: {{disable_cooldowns: true, num_retries: 0}}
"""
CATALOGUE = """
providers:
  - {{name: openai-format, kind: openai, base_url: "{url}/v1", api_key_variable: PEER_KEY, models: [{{name: "*"}}]}}
  - {{name: anthropic-format, kind: anthropic, base_url: "{url}", api_key_variable: PEER_KEY, models: [{{name: "*"}}]}}
  - {{name: gemini-format, kind: gemini, base_url: "{url}", api_key_variable: PEER_KEY, models: [{{name: "*"}}]}}
"""

pytestmark = [
    pytest.mark.skipif(not LITELLM, reason="opt-in: `make test-peers` installs a LiteLLM proxy and runs these"),
    pytest.mark.timeout(START_TIMEOUT_S + 60),
]
FORMATS = ("openai-format", "anthropic-format", "gemini-format")


@dataclass(frozen=True)
class Peer:
    """A running proxy."""

    url: str


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """The proxy, with the mock provider behind one of its models."""
    folder = tmp_path_factory.mktemp("litellm")
    (port,) = free_ports(1)
    with mock_provider(folder) as mock, (folder / "litellm.log").open("wb") as log:
        config = folder / "config.yaml"
        config.write_text(CONFIG.format(canned=CANNED, mock=mock.base_url, key=KEY))
        process = start_child(
            [LITELLM, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
            on_parent_death=signal.SIGKILL,
            env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_alive(process, port, folder / "litellm.log")
            yield Peer(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_alive(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while True:
        assert process.poll() is None, f"LiteLLM ended:\n{log.read_text(errors='replace')[-4000:]}"
        assert time.monotonic() < give_up_at, f"LiteLLM does not answer:\n{log.read_text(errors='replace')[-4000:]}"
        try:
            with urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)


@pytest.fixture
async def caller(peer: Peer, tmp_path: Path) -> AsyncIterator[Caller]:
    file = tmp_path / "catalogue.yaml"
    file.write_text(CATALOGUE.format(url=peer.url))
    settings = GatewaySettings(
        port=0, home=tmp_path / "home", auth_service_key=SERVICE_KEY, accounting="off", catalogue_file=file
    )
    async with (
        build(settings, environ={"PEER_KEY": KEY}) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
    ):
        yield Caller(gateway_pb2_grpc.GatewayServiceStub(channel), channel)


def sound(completion: gateway_pb2.Completion) -> None:
    assert completion.finish_reason == gateway_pb2.FINISH_REASON_STOP
    assert completion.usage.input_tokens > 0
    assert completion.usage.output_tokens > 0


@pytest.mark.parametrize("model", ["canned", "passed-on"])
@pytest.mark.parametrize("wire", FORMATS)
async def test_unary_and_streamed_answers(caller: Caller, wire: str, model: str) -> None:
    unary = await caller.complete(rpc_call(model=f"{wire}/{model}"))
    chunks = await caller.stream(rpc_call(model=f"{wire}/{model}"))
    streamed = "".join(chunk.text for chunk in chunks)
    for completion in (unary, chunks[-1].finished):
        sound(completion)
    text = "".join(part.text for part in unary.parts)
    assert streamed
    if model == "canned":
        assert (text, streamed) == (CANNED, CANNED)


@pytest.mark.parametrize("wire", FORMATS)
async def test_a_tool_call_comes_through(caller: Caller, wire: str) -> None:
    schema = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    call = rpc_call("Is it warm in Oslo?", model=f"{wire}/passed-on", tool_choice="weather")
    call.tools.add(name="weather", description="The weather of a city.", parameters_json_schema=schema)
    chunks = await caller.stream(call)
    assert chunks[-1].finished.finish_reason == gateway_pb2.FINISH_REASON_TOOL_CALLS
    pieces = [chunk.tool_call for chunk in chunks if chunk.HasField("tool_call")]
    assert [piece.name for piece in pieces if piece.name] == ["weather"]
    assert "".join(piece.arguments_json for piece in pieces).startswith("{")


@pytest.mark.parametrize("wire", FORMATS)
async def test_its_errors_are_told_by_the_table(caller: Caller, wire: str) -> None:
    once = gateway_pb2.Resilience(retries_max=0)
    refused, error = await refusal_of(caller.complete(rpc_call(model=f"{wire}/limited", resilience=once)))
    assert (refused.reason, error.provider_status) == ("RATE_LIMITED", 429)
    refused, _ = await refusal_of(caller.complete(rpc_call(model=f"{wire}/no-such-model", resilience=once)))
    assert refused.code in ("INVALID_ARGUMENT", "NOT_FOUND")


async def test_a_stream_that_is_left_stops_and_the_peer_answers_on(caller: Caller) -> None:
    slow = options(ttft_ms=1.0, tokens_per_second=2.0, chunk_size=1)
    request = gateway_pb2.StreamCompleteRequest(call=rpc_call(model="openai-format/passed-on", parameters=slow))
    from tests.support.gateway_rpc import token_of

    stream = caller.stub.StreamComplete(request, metadata=token_of())
    async for message in stream:
        if any(chunk.text for chunk in message.chunks):
            break
    stream.cancel()
    sound(await caller.complete(rpc_call(model="openai-format/canned")))
