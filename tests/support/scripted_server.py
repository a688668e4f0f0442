"""A real gRPC server on loopback that answers as a test tells it, for what our own servers would not do on demand."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from google.rpc import status_pb2

import llmlab.client as _all_contracts_are_loaded  # noqa: F401 (the pool knows the methods of imported modules only)


@dataclass(frozen=True, slots=True)
class Failure:
    """A status to end with; `details` are packed into a google.rpc.Status where there are any."""

    code: grpc.StatusCode
    message: str = ""
    details: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class Silence:
    """Says nothing more until the caller leaves or the deadline passes."""


Step = Message | Failure | Silence


@dataclass(frozen=True, slots=True)
class Received:
    """A request, with the caller's metadata and the time that its deadline left."""

    request: Any
    metadata: dict[str, Any]
    remaining_s: float | None


@dataclass(slots=True)
class Script:
    """What the server does, by "Service/Method", and what it was asked.

    `on` queues one call's steps (messages, then at most one Failure or Silence); a call without a script is
    UNIMPLEMENTED. `abandoned` is set when a caller has left a call before its end.
    """

    calls: defaultdict[str, list[Received]] = field(default_factory=lambda: defaultdict(list))
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    _steps: defaultdict[str, deque[Sequence[Step]]] = field(default_factory=lambda: defaultdict(deque))

    def on(self, method: str, *steps: Step) -> None:
        """Queues the steps of the next call of the method."""
        self._steps[method].append(steps)

    async def play(self, method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        """Records a call and performs its steps."""
        metadata = dict(context.invocation_metadata() or ())
        self.calls[method].append(Received(request, metadata, context.time_remaining()))
        if not self._steps[method]:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no script for {method}")
        try:
            for step in self._steps[method].popleft():
                if isinstance(step, Failure):
                    await _abort(step, context)
                elif isinstance(step, Silence):
                    await asyncio.Event().wait()
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            # A call that is left while a message is being written closes this generator instead of cancelling it.
            self.abandoned.set()
            raise


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, script: Script) -> None:
        self._script = script

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        service, _, name = handler_call_details.method[1:].rpartition("/")
        try:
            method = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
        except KeyError:
            return None
        play = _player(self._script, f"{service.rpartition('.')[2]}/{name}")
        parse: Callable[[bytes], Message] = message_factory.GetMessageClass(method.input_type).FromString
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(play, parse, _serialize)

        async def unary(request: Any, context: Any) -> Any:
            async for answer in play(request, context):
                return answer
            raise AssertionError("a unary script has one message or a failure")

        return grpc.unary_unary_rpc_method_handler(unary, parse, _serialize)


def _player(script: Script, method: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
    # grpc.aio takes a handler for asynchronous only where it is an async generator function itself.
    async def play(request: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in script.play(method, request, context):
            yield answer

    return play


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


async def _abort(failure: Failure, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    if failure.details:
        status = status_pb2.Status(code=failure.code.value[0], message=failure.message)
        for detail in failure.details:
            status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(failure.code, failure.message)


@asynccontextmanager
async def scripted_server() -> AsyncIterator[tuple[Script, str]]:
    """A server with an empty script, and its target."""
    script = Script()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handler(script),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield script, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
