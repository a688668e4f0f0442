"""Traces over real gRPC: whose decision counts, and what lies below what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from services.runtime.auth import TokenVerifier
from services.runtime.channel import open_channel
from services.runtime.errors import Internal, NotFound
from services.runtime.server import serve
from services.runtime.tracing import NOT_RECORDED, TRACEPARENT_HEADER, current_traceparent, open_tracing
from tests.support.echo import Echo, EchoServicer, echo_settings, request

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"


@asynccontextmanager
async def traced_echo(file: Path, servicer: EchoServicer, *, ratio: float = 0.0) -> AsyncIterator[Echo]:
    """A served EchoServicer with a channel to it, both traced."""
    settings = echo_settings(trace_file=file, trace_ratio=ratio)
    with open_tracing(settings) as tracer:
        async with (
            serve(settings, [servicer], verifier=TokenVerifier.from_settings(settings), tracer=tracer) as server,
            open_channel(server.address, settings, tracer) as channel,
        ):
            yield Echo(servicer, server, channel, settings)


def spans_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def sent(echo: Echo, traceparent: str) -> Any:
    """The metadata of a caller outside, with a trace context of its own."""
    return (*echo.metadata(), (TRACEPARENT_HEADER, traceparent))


def outside(echo: Echo) -> Any:
    """A stub of a caller that is not llmlab's: it sends what it is told to."""
    return type(echo.stub)(echo.channel._channel)


async def test_a_call_of_a_peer_lies_below_the_rpc_that_made_it(tmp_path: Path) -> None:
    file = tmp_path / "spans"
    echoes: list[Echo] = []

    async def answer(asked: Any) -> str:
        if asked.text == "inner":
            return current_traceparent()
        (echo,) = echoes
        counted = echo.stub.Count(request("inner"), metadata=echo.metadata())
        assert len([each async for each in counted]) == 3
        return str((await echo.stub.Echo(request("inner"), metadata=echo.metadata())).text)

    async with traced_echo(file, EchoServicer(answer=answer)) as echo:
        echoes.append(echo)
        stub = outside(echo)
        answered = await stub.Echo(request("outer"), metadata=sent(echo, f"{CALLER}-01"))
        unrecorded = await stub.Echo(request("inner"), metadata=sent(echo, f"{CALLER}-00"))
        undecided = await stub.Echo(request("inner"), metadata=echo.metadata())
    assert (unrecorded.text, undecided.text) == ("", "")
    spans = spans_of(file)
    by_id = {span["span_id"]: span for span in spans}
    assert {span["trace_id"] for span in spans} == {CALLER[3:35]}
    (outer,) = [span for span in spans if span["parent_span_id"] == CALLER[36:]]
    below = [span for span in spans if span["parent_span_id"] == outer["span_id"]]
    assert [(span["kind"], span["name"].rpartition("/")[2]) for span in below] == [
        ("CLIENT", "Count"),
        ("CLIENT", "Echo"),
    ]
    inner = by_id[answered.text[36:52]]
    assert (inner["kind"], inner["parent_span_id"]) == ("SERVER", below[1]["span_id"])
    assert {span["attributes"]["rpc.response.status_code"] for span in spans} == {"OK"}


@pytest.mark.parametrize(
    ("traceparent", "ratio", "recorded"),
    [
        ("", 0.0, 0),
        ("", 1.0, 1),
        ("nonsense", 1.0, 1),
        (NOT_RECORDED, 1.0, 0),
        (f"{CALLER}-01", 0.0, 1),
    ],
)
async def test_who_began_a_trace_has_decided_about_it(
    tmp_path: Path, traceparent: str, ratio: float, recorded: int
) -> None:
    file = tmp_path / "spans"
    async with traced_echo(file, EchoServicer(), ratio=ratio) as echo:
        metadata = sent(echo, traceparent) if traceparent else echo.metadata()
        await outside(echo).Echo(request(), metadata=metadata)
        await echo.stub.Echo(request(), metadata=echo.metadata())  # of this process, outside any RPC: never a root
    spans = spans_of(file)
    assert len(spans) == recorded
    assert all(span["parent_span_id"] == (CALLER[36:] if traceparent.startswith(CALLER) else "") for span in spans)


@pytest.mark.parametrize(
    ("error", "code", "failed"),
    [
        (NotFound("NOT_FOUND", "sk-aaaaaaaaaaaaaaaaaaaa is not there"), "NOT_FOUND", {}),
        (Internal("INTERNAL", "broken"), "INTERNAL", {"error.type": "INTERNAL"}),
    ],
)
async def test_a_refusal_is_an_answer_and_a_fault_is_none(
    tmp_path: Path, error: Exception, code: str, failed: dict[str, str]
) -> None:
    async def answer(_: Any) -> str:
        raise error

    file = tmp_path / "spans"
    async with traced_echo(file, EchoServicer(answer=answer), ratio=1.0) as echo:
        with pytest.raises(AioRpcError):
            await outside(echo).Echo(request(), metadata=echo.metadata())
    (span,) = spans_of(file)
    attributes = span["attributes"]
    assert attributes.pop("llmlab.request.id").startswith("req_")
    method = attributes.pop("rpc.method")
    assert method == span["name"]
    assert attributes == {"rpc.system.name": "grpc", "rpc.response.status_code": code, **failed}
    assert span["status"] == ("ERROR" if failed else "UNSET")


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (the contract names it)
        for resource in request.resource_spans:
            (service,) = [
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            ]
            found = self.names.setdefault(service, [])
            found.extend(span.name for scope in resource.scope_spans for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


def test_a_collector_gets_the_spans_before_a_process_ends() -> None:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    serve_spans: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # it has no types
    serve_spans(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with open_tracing(echo_settings(trace_endpoint=f"http://127.0.0.1:{port}")) as tracer:
            assert tracer is not None
            for number in range(3):
                tracer.begin(f"span {number}").end()
        assert collector.names == {"llmlab-echo": ["span 0", "span 1", "span 2"]}
    finally:
        server.stop(None).wait()
