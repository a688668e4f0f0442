"""The HTTP server around the mock's engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import orjson
from aiohttp import web

from services.gateway.collector import Collector
from services.gateway.failures import CallFailed, ProviderFault
from services.gateway.mockserver.anthropic_wire import AnthropicWire
from services.gateway.mockserver.call_log import CallLog
from services.gateway.mockserver.gemini_wire import GeminiWire
from services.gateway.mockserver.openai_wire import OpenAiWire
from services.gateway.mockserver.responses_wire import ResponsesWire
from services.gateway.mockserver.wire import Wire, WireRequest
from services.gateway.providers.mock import MockFailed, MockProvider
from services.runtime.ids import new_id

# The mock itself enforces no deadline: that is the caller's.
_NO_DEADLINE = float("inf")
_STATUS_OF_REFUSAL = {"MODEL_NOT_FOUND": 404}


class MockServer:
    """Answers each wire format from one engine."""

    def __init__(self, provider: MockProvider, log: CallLog, any_model: str) -> None:
        self._provider = provider
        self._log = log
        self._any_model = any_model

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        wires: tuple[Wire, ...] = (
            OpenAiWire(self._any_model),
            ResponsesWire(self._any_model),
            AnthropicWire(self._any_model),
            GeminiWire(self._any_model),
        )
        for wire in wires:
            app.router.add_post(wire.path, self._handler(wire))
        return app

    def _handler(self, wire: Wire) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            attempt_id = request.headers.get("Idempotency-Key") or new_id("mock")
            try:
                body = orjson.loads(await request.read())
            except orjson.JSONDecodeError:
                return _error(wire, ProviderFault(400, "the body is not JSON", type="invalid_request_error"))
            if isinstance(body, dict):
                # Gemini has the model in the path.
                body |= request.match_info
            model = body.get("model", "") if isinstance(body, dict) else ""
            await self._log.record(path=request.path, idempotency_key=attempt_id, model=str(model))
            try:
                wanted = wire.decode(body, attempt_id)
                return await (self._stream if wanted.stream else self._whole)(request, wire, wanted)
            except MockFailed as failed:
                if failed.fault is None:
                    return _broken(request)
                return _error(wire, failed.fault)
            except CallFailed as failed:
                status = _STATUS_OF_REFUSAL.get(failed.failure.reason, 400)
                return _error(wire, ProviderFault(status, failed.failure.message, type="invalid_request_error"))

        return handle

    async def _whole(self, request: web.Request, wire: Wire, wanted: WireRequest) -> web.StreamResponse:
        answer = Collector()
        async with aclosing(self._provider.stream(wanted.request, _NO_DEADLINE)) as stream:
            async for events in stream:
                answer.add(events)
        if answer.finish_reason is None:
            return _broken(request)
        return web.json_response(body=orjson.dumps(wire.whole(answer, wanted)))

    async def _stream(self, request: web.Request, wire: Wire, wanted: WireRequest) -> web.StreamResponse:
        encoder = wire.stream_encoder(wanted)
        response: web.StreamResponse | None = None
        finished = Collector()
        async with aclosing(self._provider.stream(wanted.request, _NO_DEADLINE)) as stream:
            async for events in stream:
                if response is None:
                    # Only now: a call that fails at once is answered with its status.
                    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                    await response.prepare(request)
                finished.add(events)
                if data := encoder.encode(events):
                    await response.write(data)
        if response is None or finished.finish_reason is None:
            return _broken(request)
        await response.write(encoder.end())
        await response.write_eof()
        return response


@asynccontextmanager
async def serve_mock(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    call_log: Path | None = None,
    overrides: Mapping[str, float] | None = None,
    any_model: str = "",
    calls_at_once: int = 0,
) -> AsyncIterator[str]:
    """Serve until the context ends; gives the base URL ("http://127.0.0.1:PORT/v1").

    `overrides` are options of every call; `any_model` names the model that answers under names the mock does not have;
    more than `calls_at_once` calls under way are answered with status 429 (0: there is no limit).
    """
    async with CallLog.open(call_log) as log:
        runner = web.AppRunner(
            MockServer(MockProvider(overrides, calls_at_once=calls_at_once), log, any_model).application(),
            handler_cancellation=True,
            access_log=None,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            bound = runner.addresses[0][1]
            yield f"http://{host}:{bound}/v1"
        finally:
            await runner.cleanup()


def _error(wire: Wire, fault: ProviderFault) -> web.Response:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after else None
    return web.json_response(body=orjson.dumps(wire.error(fault)), status=fault.status, headers=headers)


def _broken(request: web.Request) -> web.Response:
    """Breaks the connection as a crashed provider does; the response that aiohttp asks for goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
