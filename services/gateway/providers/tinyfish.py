"""TinyFish: an agent that reaches a goal on a web page. One call waits, one is asked about, one streams.

Reference: https://docs.mino.ai/key-concepts/endpoints. The API has no idempotency keys: a call that was sent is never
sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from services.gateway.calls import Automation, ProviderRequest
from services.gateway.chunks import AutomationUpdate, Event, RawBytes, Started, UsageSoFar
from services.gateway.failures import CallFailed, Failure, ProviderFault, classify, refused
from services.gateway.providers.http_call import parse_json
from services.gateway.providers.sse import SseEvent, SseEventTooLarge, SseParser
from services.gateway.providers.tinyfish_answer import FINAL_STATUSES, ending_of, run_report, usage_of
from services.gateway.providers.transport import (
    AnswerCut,
    AnswerTooLarge,
    ConnectionBroken,
    HttpAnswer,
    HttpTransport,
    NotSent,
)
from services.gateway.usage import TokenUsage

DEFAULT_BASE_URL = "https://agent.tinyfish.ai"
MAX_EVENT_BYTES = 4 * 1024 * 1024

_log = logging.getLogger(__name__)


class TinyFish:
    """One TinyFish account. `run_path` is the path of the call that waits; the others lie beside it."""

    def __init__(
        self,
        transport: HttpTransport,
        *,
        api_key: str,
        base_url: str | None,
        run_path: str,
        poll_s: float,
    ) -> None:
        base = (base_url or DEFAULT_BASE_URL).rstrip("/")
        self._run_url = base + run_path
        self._runs_url = base + run_path.removesuffix("/automation/run") + "/runs"
        self._headers = {"X-API-Key": api_key, "Content-Type": "application/json"}
        self._transport = transport
        self._poll_s = poll_s

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Provider.stream: there are no completions here."""
        raise refused("INVALID_FIELD", "TinyFish runs automations; use the AutomationService", field="call.model")

    async def automate(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Automator.automate. A run that is left before its end is cancelled at TinyFish."""
        asked = request.call.automation
        if asked is None:
            raise AssertionError("an automation has a goal")
        run = _Run(asked)
        try:
            # Closed explicitly: a generator that is only dropped keeps its socket until somebody collects it.
            async with aclosing(self._events(run)) as stream:
                async for events in stream:
                    yield events
                    if run.failure is not None:
                        raise CallFailed(run.failure)
        except NotSent as error:
            raise _lost(f"the connection to TinyFish failed: {error}; check its base URL", dispatched=False) from error
        except ConnectionBroken as error:
            raise _lost(f"the connection to TinyFish broke: {error}") from error
        except AnswerCut as error:
            message = f"the connection to TinyFish broke in the middle of the answer ({error})"
            raise CallFailed(Failure("STREAM_TRUNCATED", message, dispatched=True)) from error
        except (SseEventTooLarge, AnswerTooLarge) as error:
            raise CallFailed(Failure("PROVIDER_ERROR", str(error), dispatched=True)) from error
        finally:
            if run.run_id and not run.ended:
                await self._cancel(run.run_id)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    def _events(self, run: _Run) -> AsyncGenerator[list[Event], None]:
        modes = {"run": self._waited, "async": self._polled, "sse": self._streamed}
        return modes[run.asked.mode](run)

    async def _waited(self, run: _Run) -> AsyncGenerator[list[Event], None]:
        yield run.report(*await self._json("POST", self._run_url, run.body))

    async def _polled(self, run: _Run) -> AsyncGenerator[list[Event], None]:
        if run.asked.run_id:
            yield run.started(run.asked.run_id)
        else:
            yield run.report(*await self._json("POST", f"{self._run_url}-async", run.body))
        if not run.run_id:
            raise CallFailed(Failure("PROVIDER_ERROR", "TinyFish started a run without an id", dispatched=True))
        while not run.ended:
            await asyncio.sleep(self._poll_s)
            yield run.report(*await self._json("GET", f"{self._runs_url}/{run.run_id}", b""))

    async def _streamed(self, run: _Run) -> AsyncGenerator[list[Event], None]:
        async with self._transport.send("POST", f"{self._run_url}-sse", self._headers, run.body) as answer:
            await _check(answer)
            parser = SseParser(MAX_EVENT_BYTES)
            while not run.ended and (data := await answer.read()):
                events: list[Event] = []
                for event in parser.feed(data):
                    run.event(event, events)
                if events or run.failure is not None:
                    yield events
            await answer.drain()

    async def _json(self, method: str, url: str, body: bytes) -> tuple[Any, bytes]:
        async with self._transport.send(method, url, self._headers, body) as answer:
            await _check(answer)
            received = await answer.body()
        return parse_json(received, "the answer"), received

    async def _cancel(self, run_id: str) -> None:
        """Tell TinyFish to stop; the caller has gone, so a failure is only logged."""
        try:
            async with asyncio.timeout(self._transport.limits.connect_timeout_s):
                await self._json("POST", f"{self._runs_url}/{run_id}/cancel", b"{}")
        except (CallFailed, NotSent, ConnectionBroken, AnswerCut, AnswerTooLarge, TimeoutError) as error:
            _log.warning("could not cancel TinyFish run %s: %s", run_id, error)


class _Run:
    """One run while it is followed."""

    def __init__(self, asked: Automation) -> None:
        self.asked = asked
        self.body = orjson.dumps({"url": asked.url, "goal": asked.goal})
        self.run_id = asked.run_id
        self.ended = False
        self.failure: Failure | None = None
        self._told = False
        self._steps = 0

    def report(self, body: Any, raw: bytes) -> list[Event]:
        """The events of a whole report; `failure` is set where the run has failed."""
        report = run_report(body)
        events: list[Event] = self.started(report.run_id)
        if report.status in FINAL_STATUSES:
            self.ended = True
            events += [RawBytes(raw), usage_of(report, self._steps)]
            ending = ending_of(report)
            if isinstance(ending, Failure):
                self.failure = ending
            else:
                events += ending
        return events

    def event(self, event: SseEvent, into: list[Event]) -> None:
        """Append what one event of the stream means; `failure` is set where it reports one."""
        body = parse_json(event.data, "an event of the stream")
        if not isinstance(body, dict):
            return
        report = run_report(body)
        into += self.started(report.run_id)
        match str(body.get("type") or "").upper():
            case "PROGRESS":
                self._steps += 1
                into.append(AutomationUpdate("progress", str(body.get("purpose") or body.get("message") or "")))
                into.append(UsageSoFar(TokenUsage(steps=self._steps, measured=False)))
            case "STREAMING_URL":
                url = body.get("streamingUrl") or body.get("streaming_url") or ""
                into.append(AutomationUpdate("streaming_url", str(url)))
            case "COMPLETE":
                into += self.report(body, event.data)
            case "ERROR":
                self.ended = True
                message = report.error or str(body.get("message") or "the automation failed")
                self.failure = Failure(
                    "PROVIDER_ERROR", message[:2_000], dispatched=True, provider_request_id=self.run_id
                )

    def started(self, run_id: str) -> list[Event]:
        """The event that tells the run's id, once."""
        if not run_id or self._told:
            return []
        self.run_id, self._told = run_id, True
        return [Started(provider_request_id=run_id, streamed=self.asked.mode == "sse")]


async def _check(answer: HttpAnswer) -> None:
    """Raises CallFailed for an answer with an error status."""
    if answer.status < 300:
        return
    try:
        body = orjson.loads(await answer.body())
    except (orjson.JSONDecodeError, AnswerTooLarge, AnswerCut):
        body = {}
    error = body.get("error") if isinstance(body, dict) else None
    said = error if isinstance(error, dict) else {"message": error}
    raise CallFailed(
        classify(
            ProviderFault(
                answer.status,
                str(said.get("message") or ""),
                code=str(said.get("code") or ""),
                retry_after=answer.headers.get("retry-after", ""),
            )
        )
    )


def _lost(message: str, *, dispatched: bool = True) -> CallFailed:
    return CallFailed(Failure("NETWORK_ERROR", message, dispatched=dispatched))
