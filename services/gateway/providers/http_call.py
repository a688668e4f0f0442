"""One call over HTTP, the same for every provider that answers with JSON or server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from services.gateway.chunks import Event, RawBytes, Started
from services.gateway.failures import CallFailed, Failure
from services.gateway.providers.sse import BOM, SseEvent, SseEventTooLarge, SseParser
from services.gateway.providers.transport import (
    AnswerCut,
    AnswerTooLarge,
    ConnectionBroken,
    HttpAnswer,
    HttpTransport,
    NotSent,
)

_EVENT_STREAM_STARTS = (b"data:", b"event:", b"id:", b":")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What is posted."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    keep_raw: bool = False


class Decoder(Protocol):
    """Reads one answer in one provider's format. It raises CallFailed where the answer reports an error."""

    @property
    def done(self) -> bool:
        """Whether the provider said that nothing more comes."""
        ...

    def stream_event(self, event: SseEvent, into: list[Event]) -> None:
        """Append what a server-sent event means."""
        ...

    def whole_answer(self, body: Any) -> list[Event]:
        """What a whole JSON answer means."""
        ...


class ErrorReader(Protocol):
    """Makes failures through the provider's SDK exceptions."""

    def status_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """The failure of an answer with an error status."""
        ...

    def connection_failure(self, message: str, *, dispatched: bool) -> Failure:
        """The failure of a connection."""
        ...


async def stream_http(
    transport: HttpTransport, request: HttpRequest, decoder: Decoder, errors: ErrorReader, max_event_bytes: int
) -> AsyncGenerator[list[Event], None]:
    """Post the request and yield what its answer means, all events of one socket read together. Raises CallFailed."""
    try:
        async with transport.send("POST", request.url, request.headers, request.body) as answer:
            if answer.status >= 300:
                raise CallFailed(errors.status_failure(answer.status, answer.headers, await _error_body(answer)))
            if not answer.is_event_stream:
                yield await _whole(answer, decoder, max_event_bytes, keep_raw=request.keep_raw)
                return
            parser = SseParser(max_event_bytes)
            while not decoder.done and (data := await answer.read()):
                events: list[Event] = [RawBytes(data)] if request.keep_raw else []
                for event in parser.feed(data):
                    decoder.stream_event(event, events)
                if events:
                    yield events
            await answer.drain()
    except NotSent as error:
        raise CallFailed(errors.connection_failure(str(error), dispatched=False)) from error
    except ConnectionBroken as error:
        raise CallFailed(errors.connection_failure(str(error), dispatched=True)) from error
    except AnswerCut as error:
        message = f"the connection to the provider broke in the middle of the answer ({error})"
        raise CallFailed(Failure("STREAM_TRUNCATED", message, dispatched=True)) from error
    except (SseEventTooLarge, AnswerTooLarge) as error:
        raise CallFailed(Failure("PROVIDER_ERROR", str(error), dispatched=True)) from error


async def _whole(answer: HttpAnswer, decoder: Decoder, max_event_bytes: int, *, keep_raw: bool) -> list[Event]:
    body = await answer.body()
    if body.removeprefix(BOM).startswith(_EVENT_STREAM_STARTS):
        events = _unannounced(body, decoder, max_event_bytes)
    else:
        events = decoder.whole_answer(parse_json(body, "the answer"))
    return [RawBytes(body), *events] if keep_raw else events


def _unannounced(body: bytes, decoder: Decoder, max_event_bytes: int) -> list[Event]:
    """The events of a stream that is not called one in its headers, and so was not read as it came."""
    events: list[Event] = []
    for event in SseParser(max_event_bytes).feed(body):
        if not decoder.done:
            decoder.stream_event(event, events)
    return [replace(event, streamed=False) if isinstance(event, Started) else event for event in events]


async def _error_body(answer: HttpAnswer) -> bytes:
    try:
        return await answer.body()
    except (AnswerTooLarge, AnswerCut):
        # The status alone says enough.
        return b""


def parse_json(data: bytes, what: str) -> Any:
    """The JSON value; CallFailed(PROVIDER_ERROR) where it is none."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        shown = data[:80].decode(errors="replace")
        message = f"the provider sent something other than JSON as {what}: {shown!r}"
        raise CallFailed(Failure("PROVIDER_ERROR", message, dispatched=True)) from error
