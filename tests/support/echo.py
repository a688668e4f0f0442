"""A scripted service over real gRPC: `EchoServicer` does in each RPC what a test tells it to."""

# ruff: noqa: N802 (the contract names its RPCs)

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.runtime.auth import ServiceTokenMinter, TokenVerifier
from services.runtime.channel import call_metadata, open_channel
from services.runtime.context import endless
from services.runtime.server import RunningServer, serve
from services.runtime.settings import ServiceSettings
from tools.protoc import PROTOS, run_protoc

SERVICE_KEY = "5e" * 32


def _generate() -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as directory:
        outputs = [f"--{kind}_out={directory}" for kind in ("python", "grpc_python")]
        run_protoc(Path(__file__).parent, [f"--proto_path={PROTOS}", *outputs])
        sys.path.insert(0, directory)
        try:
            return importlib.import_module("echo_pb2"), importlib.import_module("echo_pb2_grpc")
        finally:
            sys.path.remove(directory)


echo_pb2, echo_pb2_grpc = _generate()


class EchoSettings(ServiceSettings, service="echo"):
    """Settings of the scripted service."""


def echo_settings(**overrides: Any) -> EchoSettings:
    """On any free port, with a service key, quick to stop."""
    return EchoSettings(**{"port": 0, "auth_service_key": SERVICE_KEY, "grace_s": 5.0, **overrides})


async def say_back(request: Any) -> str:
    """What an EchoServicer does when nobody tells it otherwise."""
    return str(request.text)


async def count_to_three(request: Any) -> AsyncIterator[str]:
    """The stream of an EchoServicer when nobody tells it otherwise."""
    for number in range(3):
        yield f"{request.text}{number}"


# Generated when the tests start, so that no type checker has seen it.
_Servicer: Any = echo_pb2_grpc.EchoServiceServicer


class EchoServicer(_Servicer):  # type: ignore[misc]
    """`answer` is awaited in every unary RPC, `stream` iterated in every server stream; requests are kept."""

    def __init__(
        self,
        answer: Callable[[Any], Awaitable[str]] = say_back,
        stream: Callable[[Any], AsyncIterator[str]] = count_to_three,
    ) -> None:
        self.answer = answer
        self.stream = stream
        self.requests: list[Any] = []

    async def Echo(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return echo_pb2.EchoResponse(text=await self.answer(request))

    async def EchoPublic(self, request: Any, context: Any) -> Any:
        return await self.Echo(request, context)

    async def EchoAuthenticated(self, request: Any, context: Any) -> Any:
        return await self.Echo(request, context)

    async def EchoService(self, request: Any, context: Any) -> Any:
        return await self.Echo(request, context)

    async def EchoUndeclared(self, request: Any, context: Any) -> Any:
        return await self.Echo(request, context)

    async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        async for text in self.stream(request):
            yield echo_pb2.EchoResponse(text=text)

    @endless
    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        async for text in self.stream(request):
            yield echo_pb2.EchoResponse(text=text)

    async def Collect(self, requests: AsyncIterator[Any], context: Any) -> Any:
        async for request in requests:
            self.requests.append(request)
        return echo_pb2.EchoResponse(text="".join(request.text for request in self.requests))

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            self.requests.append(request)
            yield echo_pb2.EchoResponse(text=await self.answer(request))


class Echo:
    """A running EchoServicer, a stub of it, and the metadata that lets a test in."""

    def __init__(self, servicer: EchoServicer, server: RunningServer, channel: Any, settings: EchoSettings) -> None:
        self.servicer = servicer
        self.server = server
        self.channel = channel
        self.stub = echo_pb2_grpc.EchoServiceStub(channel)
        self.minter = ServiceTokenMinter.from_settings(settings)

    def metadata(self, *permissions: str) -> Any:
        """A credential of the project "prj_1" with these permissions."""
        return call_metadata(self.minter.token("prj_1", permissions=permissions or ("READ",)))


@asynccontextmanager
async def running_echo(
    servicer: EchoServicer | None = None, *, verifier: TokenVerifier | None = None, **overrides: Any
) -> AsyncIterator[Echo]:
    """Serve an EchoServicer on a free port, with a channel to it."""
    settings = echo_settings(**overrides)
    servicer = servicer or EchoServicer()
    verifier = verifier or TokenVerifier.from_settings(settings)
    async with (
        serve(settings, [servicer], verifier=verifier) as server,
        open_channel(server.address, settings) as channel,
    ):
        yield Echo(servicer, server, channel, settings)


def request(text: str = "hello", **fields: Any) -> Any:
    """An EchoRequest."""
    return echo_pb2.EchoRequest(text=text, **fields)
