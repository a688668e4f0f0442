"""Runs the stages around every handler, of all four kinds of RPC.

It takes the place of gRPC's interceptors, of which each costs a coroutine, a handler object and a lookup per call. Per
method everything is resolved once; per call a list of bound methods is walked.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc.aio import AbortError

from services.runtime.context import Call, bind_call
from services.runtime.errors import DomainError, InvalidRequest, Unimplemented
from services.runtime.interceptors.stage import Stage
from services.runtime.methods import PUBLIC, Method, describe_path
from services.runtime.status import code_of, status_of, trailing_metadata

T = TypeVar("T")
Handler = Callable[[Any, Any], Any]


class Pipeline(grpc.GenericRpcHandler):
    """Runs `stages` in the order in which they are given.

    The generated `add_...Servicer_to_server` take it for a server: it gathers their handlers, and is the only one that
    the server itself knows.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._enter = [stage.enter for stage in stages if type(stage).enter is not Stage.enter]
        self._message = [stage.message for stage in stages if type(stage).message is not Stage.message]
        self._failed = [stage.failed for stage in reversed(stages) if type(stage).failed is not Stage.failed]
        self._leave = [stage.leave for stage in reversed(stages) if type(stage).leave is not Stage.leave]
        self._served: list[grpc.GenericRpcHandler] = []
        self._handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """See grpc.aio.Server."""
        self._served.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """See grpc.aio.Server. They are among the generic ones.

        The server would wait for each of its registered methods apart, with every call for all of them anew.
        """

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of this RPC with the stages around it, made at the method's first call."""
        path = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is None:
            found = (served.service(handler_call_details) for served in self._served)
            served = next((one for one in found if one is not None), None)
            if served is None:
                # Not kept: a caller can invent any number of paths.
                return self._unknown(path)
            handler = self._handlers[path] = self._wrap(describe_path(path), served)
        return handler

    def _wrap(self, method: Method, served: Any) -> grpc.RpcMethodHandler[Any, Any]:
        make, handler = _kind_of(served)
        around = self._stream if served.response_streaming else self._unary
        behaviour = around(method, handler, streams_requests=served.request_streaming)
        return make(behaviour, _reader(served.request_deserializer), served.response_serializer)

    def _unknown(self, path: str) -> grpc.RpcMethodHandler[Any, Any]:
        async def refuse(_: Any, __: Any) -> NoReturn:
            raise Unimplemented(
                "UNKNOWN_METHOD",
                f"this server has no method {path[:200]}; check the target and the versions of client and server",
            )

        # A stream of requests, because an unknown method may have any number of them.
        unknown = Method(path="/unknown/Unknown", permission=PUBLIC, infrastructure=True)
        return grpc.stream_unary_rpc_method_handler(self._unary(unknown, refuse, streams_requests=True))

    def _unary(self, method: Method, handler: Handler, *, streams_requests: bool) -> Handler:
        async def unary(request: Any, context: Any) -> Any:
            call = Call(method, context, asyncio.current_task())

            async def body() -> Any:
                if streams_requests:
                    return await handler(self._checked_stream(call, request), context)
                await self._check(call, request)
                return await handler(request, context)

            return await self._run(call, body)

        return unary

    def _stream(self, method: Method, handler: Handler, *, streams_requests: bool) -> Handler:
        endless = getattr(handler, "__endless__", False)

        # Not an async generator: gRPC would leave a cancelled one suspended until it is garbage collected. Here the
        # handler's generator is closed, and its `finally` runs, before the call is over.
        async def stream(request: Any, context: Any) -> None:
            call = Call(method, context, asyncio.current_task(), endless=endless)

            async def body() -> None:
                if streams_requests:
                    responses = handler(self._checked_stream(call, request), context)
                else:
                    await self._check(call, request)
                    responses = handler(request, context)
                if not hasattr(responses, "__aiter__"):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        await context.write(response)

            await self._run(call, body)

        return stream

    async def _run(self, call: Call, body: Callable[[], Awaitable[T]]) -> T:
        bind_call(call)
        try:
            for enter in self._enter:
                waiting = enter(call)
                if waiting is not None:
                    await waiting
            return await body()
        except asyncio.CancelledError as cancelled:
            call.error = call.ending or cancelled
            if call.ending is None or call.task is None:
                raise
            call.task.uncancel()
        except AbortError as aborted:
            call.error = aborted
            raise
        except Exception as error:  # noqa: BLE001 (whatever a handler raises has an answer)
            call.error = self._mapped(call, error)
        finally:
            # The task refers to its context, and so to the call: without this each call would be garbage in a cycle.
            call.task = None
            for leave in self._leave:
                leave(call)
        return await self._abort(call)

    def _mapped(self, call: Call, error: Exception) -> Exception:
        for failed in self._failed:
            error = failed(call, error)
        return error

    async def _abort(self, call: Call) -> NoReturn:
        error = call.error
        if not isinstance(error, DomainError):
            raise TypeError("the error stage must turn every error into a DomainError") from error
        status = status_of(error, call.request_id)
        call.error = None
        await call.context.abort(code_of(error), status.message, trailing_metadata(status))
        raise AssertionError("abort returned")

    async def _checked_stream(self, call: Call, requests: AsyncIterator[Any]) -> AsyncIterator[Message]:
        async for request in requests:
            await self._check(call, request)
            yield request

    async def _check(self, call: Call, request: Message | DecodeError) -> None:
        if isinstance(request, DecodeError):
            # Not the library's words, which differ between its versions.
            raise InvalidRequest(
                "INVALID_FIELD",
                "the request can't be read: it is not in Protobuf's format, or a text in it is not UTF-8",
            )
        for check in self._message:
            waiting = check(call, request)
            if waiting is not None:
                await waiting


def _reader(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | DecodeError]:
    """Reads a request; what can't be read becomes a value, so that it is refused like every other wrong request."""

    def read(data: bytes) -> Message | DecodeError:
        try:
            return deserialize(data)
        except DecodeError as error:
            return error

    return read


def _kind_of(served: Any) -> tuple[Callable[..., grpc.RpcMethodHandler[Any, Any]], Handler]:
    """The constructor and the behaviour of a handler's kind of RPC. Raises TypeError for one that is not async."""
    if served.request_streaming and served.response_streaming:
        kind = grpc.stream_stream_rpc_method_handler, served.stream_stream
    elif served.request_streaming:
        kind = grpc.stream_unary_rpc_method_handler, served.stream_unary
    elif served.response_streaming:
        kind = grpc.unary_stream_rpc_method_handler, served.unary_stream
    else:
        kind = grpc.unary_unary_rpc_method_handler, served.unary_unary
    if not (inspect.iscoroutinefunction(kind[1]) or inspect.isasyncgenfunction(kind[1])):
        raise TypeError(f"{kind[1]!r} must be `async def`: a handler that is not would run in a thread")
    return kind
