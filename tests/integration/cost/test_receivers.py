"""Posts to receivers that misbehave, and to addresses that nothing may be sent to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from services.cost.alerting.receivers import HttpReceivers
from tests.support.receiver import always, receiving


@asynccontextmanager
async def receivers(*, timeout_s: float = 30.0, private: bool = True) -> AsyncIterator[HttpReceivers]:
    made = HttpReceivers(timeout_s=timeout_s, private=private)
    try:
        yield made
    finally:
        await made.close()


async def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    async with receiving(always(0)) as receiver, receivers(timeout_s=0.2) as posts:
        outcome = await posts.post(receiver.url, {"webhook-id": "dlv_1"}, b"{}")
    assert outcome.error == "no answer within 0.2 s"


async def test_a_redirect_is_a_failure_and_is_not_followed() -> None:
    async with receiving(always(302)) as receiver, receivers() as posts:
        outcome = await posts.post(receiver.url, {}, b"{}")
    assert outcome.http_status == 302
    assert "redirects are not followed" in outcome.error
    assert len(receiver.messages) == 1


async def test_the_body_of_an_answer_is_not_read() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65_536)

    application = web.Application()
    application.router.add_post("/", endless)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with receivers() as posts:
            outcome = await posts.post(f"http://127.0.0.1:{runner.addresses[0][1]}/", {}, b"{}")
        assert outcome.delivered
    finally:
        await runner.cleanup()


async def test_a_closed_port_is_a_failure() -> None:
    async with receivers() as posts:
        outcome = await posts.post("http://127.0.0.1:1/", {}, b"{}")
    assert outcome.error.startswith("no connection: ")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_no_spelling_of_an_address_leads_to_what_is_not_public(host: str) -> None:
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, receivers(private=False) as posts:
        outcome = await posts.post(f"https://{host}:{port}/", {}, b"{}")
        plain = await posts.post(f"http://{host}:{port}/", {}, b"{}")
    assert not outcome.delivered
    # Some spellings are refused as such.
    assert "not public" in outcome.error or "canonical" in outcome.error
    assert "not https" in plain.error
    assert taken == []
