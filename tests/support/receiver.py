"""Receivers of webhooks: real HTTP servers on loopback that answer as a script says and keep what they got."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

Answer = Callable[[int], int]
"""The status of the n-th request (0, 1 ...); 0 means that it is never answered."""


@dataclass(frozen=True)
class Message:
    """One request as it arrived."""

    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """Verifies as the Standard Webhooks specification says; written without a look at the service's code."""
        prefix, _, encoded = secret.partition("_")
        assert prefix == "whsec"
        to_sign = self.message_id + "." + self.headers["webhook-timestamp"] + "." + self.body.decode("utf-8")
        digest = hmac.digest(base64.b64decode(encoded, validate=True), to_sign.encode("utf-8"), hashlib.sha256)
        versions = [one.split(",", 1) for one in self.headers["webhook-signature"].split(" ")]
        return any(version == "v1" and base64.b64decode(given) == digest for version, given in versions)


class Receiver:
    """A receiver at `url`."""

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.messages: list[Message] = []
        self._answer = answer
        self._arrived = asyncio.Condition()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self._answer(len(self.messages))
        async with self._arrived:
            self.messages.append(Message(dict(request.headers.items()), body, status))
            self._arrived.notify_all()
        if not status:
            await asyncio.Event().wait()
        return web.Response(status=status, headers={"location": "http://127.0.0.1:1/"} if status == 302 else {})

    def delivered(self) -> Counter[str]:
        """How often each message was answered with 2xx."""
        return Counter(message.message_id for message in self.messages if 200 <= message.status < 300)

    async def until(self, count: int, *, delivered: bool = True) -> None:
        """Wait until so many messages were taken, or have arrived."""
        async with asyncio.timeout(60), self._arrived:
            await self._arrived.wait_for(lambda: (len(self.delivered()) if delivered else len(self.messages)) >= count)


def always(status: int) -> Answer:
    return lambda _: status


@asynccontextmanager
async def receiving(answer: Answer) -> AsyncIterator[Receiver]:
    """A receiver for as long as the context lasts."""
    receiver = Receiver(answer)
    application = web.Application()
    application.router.add_post("/alerts", receiver.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"
        yield receiver
    finally:
        await runner.cleanup()
