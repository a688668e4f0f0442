"""The HTTP client of the providers against servers that speak HTTP well, oddly, and not at all."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from services.gateway.providers.http_connection import HEAD_MAX_BYTES
from services.gateway.providers.transport import (
    AnswerCut,
    AnswerTooLarge,
    ConnectionBroken,
    HttpTransport,
    NotSent,
    TransportLimits,
)
from tests.support.certificates import pem_files

Serve = Callable[[StreamReader, StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"


async def heard(reader: StreamReader) -> str:
    """A request, head and body; empty where the client has left."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return ""
    length = next((line.split(":")[1] for line in head.split("\r\n") if line.startswith("Content-Length")), "0")
    return head + (await reader.readexactly(int(length))).decode()


class Wire:
    """Answers every request with the same bytes; `ends`: then the connection ends."""

    def __init__(self, answer: bytes, *, ends: bool = False) -> None:
        self.answer = answer
        self.ends = ends
        self.requests: list[str] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        while request := await heard(reader):
            self.requests.append(request)
            self.asked.set()
            writer.write(self.answer)
            if self.ends:
                break
        self.left.set()


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server; gives its host and port."""

    async def connection(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def opened(
    limits: TransportLimits | None = None, roots: ssl.SSLContext | None = None
) -> AsyncIterator[HttpTransport]:
    """A transport, closed at the end."""
    transport = HttpTransport(limits, roots)
    try:
        yield transport
    finally:
        await transport.close()


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server, and for a client that trusts it."""
    certificate, key = pem_files(folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


async def body_of(transport: HttpTransport, place: str, body: bytes = b"{}") -> bytes:
    async with transport.send("POST", f"http://{place}/v1/x", {}, body) as answer:
        return await answer.body()


def test_it_works_on_the_loop_of_the_services(tmp_path: Path) -> None:
    server, client = contexts(tmp_path)

    async def play() -> None:
        plain, encrypted, endless = Wire(HELLO), Wire(HELLO), Wire(b"")
        async with (
            serving(plain) as plain_place,
            serving(encrypted, server) as encrypted_place,
            serving(endless) as endless_place,
            opened(roots=client) as transport,
        ):
            for url in (f"http://{plain_place}/", f"https://{encrypted_place}/") * 2:
                async with transport.send("POST", url, {}, b"") as answer:
                    assert await answer.body() == b"hello"
                    sock = answer._connection.transport.get_extra_info("socket")
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            waiting = asyncio.create_task(body_of(transport, endless_place))
            await endless.asked.wait()
            waiting.cancel()
            await asyncio.wait_for(endless.left.wait(), 5)
        assert (plain.connections, encrypted.connections) == (1, 1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (HELLO, b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (OK.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\nhello", b"hello"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"hello"), b"hello"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
    ],
    ids=["length", "chunked", "interim", "nothing", "bare-line-feeds", "gzip", "empty"],
)
async def test_what_servers_say_is_understood_and_the_connection_used_again(answer: bytes, body: bytes) -> None:
    wire = Wire(answer)
    async with serving(wire) as place, opened() as transport:
        assert [await body_of(transport, place) for _ in range(3)] == [body] * 3
        assert wire.connections == 1


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    wire = Wire(OK + b"\r\nhello", ends=True)
    async with serving(wire) as place, opened() as transport:
        assert [await body_of(transport, place) for _ in range(2)] == [b"hello"] * 2
        assert wire.connections == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nContent-Le", ConnectionBroken),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ConnectionBroken),
        (OK + b"X: " + b"x" * HEAD_MAX_BYTES, ConnectionBroken),
        (OK + b"Content-Length: 6\r\n\r\nhello", AnswerCut),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", AnswerCut),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n", AnswerCut),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: " + b"x" * HEAD_MAX_BYTES, AnswerCut),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", AnswerCut),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + gzip.compress(b"hello")[:20], AnswerCut),
        (OK + b"Content-Length: 2000\r\n\r\n" + b"x" * 2_000, AnswerTooLarge),
    ],
    ids=[
        "silence",
        "half-a-head",
        "another-protocol",
        "endless-head",
        "short-body",
        "no-last-chunk",
        "bad-chunk",
        "endless-trailer",
        "no-gzip",
        "cut-gzip",
        "too-large",
    ],
)
async def test_what_is_broken_says_how_far_it_came(answer: bytes, error: type[Exception]) -> None:
    async with serving(Wire(answer, ends=True)) as place, opened(TransportLimits(max_answer_bytes=1_000)) as transport:
        with pytest.raises(error):
            await body_of(transport, place)


async def test_what_was_not_asked_for_ends_the_connection() -> None:
    wire = Wire(HELLO + HELLO)
    async with serving(wire) as place, opened() as transport:
        assert [await body_of(transport, place) for _ in range(2)] == [b"hello"] * 2
        assert wire.connections == 2


async def test_a_request_is_what_its_caller_says() -> None:
    wire = Wire(HELLO)
    async with serving(wire) as place, opened() as transport:
        url = f"http://{place}/v1/a b:c%20d?q=1"
        async with transport.send("POST", url, {"X-Key": "Schlüssel"}, b"body") as answer:
            assert answer.headers == {"content-length": "5"}
            sock = answer._connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        async with transport.send("GET", f"http://{place}", {}, b""):
            pass
    head = f"Host: {place}\r\nAccept-Encoding: identity\r\n"
    assert wire.requests == [
        f"POST /v1/a%20b:c%20d?q=1 HTTP/1.1\r\n{head}Content-Length: 4\r\nX-Key: Schlüssel\r\n\r\nbody",
        f"GET / HTTP/1.1\r\n{head}\r\n",
    ]


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1:1/", {}),
        ("http://a..b/", {}),
        ("ftp://localhost/", {}),
        ("http:///x", {}),
        ("http://me:secret@localhost/", {}),
        ("http://localhost:x/", {}),
        ("http://localhost/", {"Authorization": "Bearer key\n"}),
    ],
)
async def test_what_cannot_be_sent_is_not_sent(url: str, headers: dict[str, str]) -> None:
    async with opened() as transport:
        with pytest.raises(NotSent) as refused:
            async with transport.send("POST", url, headers, b""):
                pass
        assert "secret" not in str(refused.value)


async def test_connecting_is_not_waited_for_longer_than_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full:
        place = f"127.0.0.1:{full.getsockname()[1]}"
        others = [socket.socket() for _ in range(4)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        async with opened(TransportLimits(connect_timeout_s=0.05)) as transport:
            with pytest.raises(NotSent, match="timed out"):
                await body_of(transport, place)
        for other in others:
            other.close()


async def test_no_more_connections_are_used_than_the_limit() -> None:
    wire = Wire(HELLO)
    async with serving(wire) as place, opened(TransportLimits(max_connections=2)) as transport:
        assert await asyncio.gather(*[body_of(transport, place) for _ in range(9)]) == [b"hello"] * 9
        assert wire.connections == 2


async def test_an_idle_connection_is_given_up_after_a_while() -> None:
    wire = Wire(HELLO)
    async with serving(wire) as place, opened(TransportLimits(keepalive_s=0.01)) as transport:
        assert await body_of(transport, place) == b"hello"
        await asyncio.wait_for(wire.left.wait(), 5)
        assert await body_of(transport, place) == b"hello"
        assert wire.connections == 2


async def test_leaving_an_answer_closes_its_socket() -> None:
    wire = Wire(OK + b"Content-Length: 9\r\n\r\nhello")
    async with serving(wire) as place, opened() as transport:
        async with transport.send("POST", f"http://{place}/", {}, b"") as answer:
            assert await answer.read() == b"hello"
        await asyncio.wait_for(wire.left.wait(), 5)


async def test_a_cancelled_request_closes_its_socket() -> None:
    wire = Wire(b"")
    async with serving(wire) as place, opened() as transport:
        waiting = asyncio.create_task(body_of(transport, place))
        await wire.asked.wait()
        waiting.cancel()
        await asyncio.wait_for(wire.left.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_slow_reader_holds_the_server_up() -> None:
    sent = 0
    size = 64 * 1024 * 1024

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal sent
        await heard(reader)
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async with serving(serve) as place, opened() as transport:
        async with transport.send("POST", f"http://{place}/", {}, b"") as answer:
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.05)
            assert 0 < sent < size / 2
            received = 0
            while data := await answer.read():
                received += len(data)
        assert received == size


class Tunnel:
    """An HTTP proxy: tunnels what is to be encrypted, answers the rest by itself."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.refusal = refusal
        self.requests: list[str] = []

    async def __call__(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection."""
        self.requests.append(request := await heard(reader))
        if self.refusal or not request.startswith("CONNECT"):
            writer.write(self.refusal or HELLO)
            return
        host, _, port = request.split(" ")[1].partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


class TestTls:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """See contexts."""
        return contexts(tmp_path)

    async def test_a_trusted_server_is_asked(self, pair: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        server, client = pair
        wire = Wire(HELLO)
        async with serving(wire, server) as place, opened(roots=client) as transport:
            for _ in range(2):
                async with transport.send("POST", f"https://{place}/", {}, b"{}") as answer:
                    assert await answer.body() == b"hello"
            assert wire.connections == 1

    async def test_another_one_is_not(self, pair: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        wire = Wire(HELLO)
        async with serving(wire, pair[0]) as place, opened() as transport:
            with pytest.raises(NotSent, match="certificate"):
                async with transport.send("POST", f"https://{place}/", {}, b"{}"):
                    pass
        assert wire.requests == []

    async def test_a_proxy_tunnels(self, pair: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        server, client = pair
        wire, tunnel = Wire(HELLO), Tunnel()
        async with serving(wire, server) as place, serving(tunnel) as proxy:
            limits = TransportLimits(proxy=f"http://me:p%40ss@{proxy}")
            async with opened(limits, client) as transport:
                for _ in range(2):
                    async with transport.send("POST", f"https://{place}/x", {}, b"{}") as answer:
                        assert await answer.body() == b"hello"
        credentials = "Proxy-Authorization: Basic bWU6cEBzcw=="
        assert tunnel.requests == [f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{credentials}\r\n\r\n"]
        assert len(wire.requests) == 2
        assert "Proxy" not in wire.requests[0]

    async def test_a_proxy_that_refuses_is_named(self) -> None:
        tunnel = Tunnel(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        async with serving(tunnel) as proxy, opened(TransportLimits(proxy=f"http://{proxy}")) as transport:
            with pytest.raises(NotSent, match="407"):
                async with transport.send("POST", "https://localhost/", {}, b"{}"):
                    pass


async def test_a_proxy_is_asked_for_what_is_not_encrypted() -> None:
    tunnel = Tunnel()
    async with serving(tunnel) as proxy, opened(TransportLimits(proxy=f"http://{proxy}")) as transport:
        assert await body_of(transport, "provider.example:8080") == b"hello"
    assert tunnel.requests[0].startswith("POST http://provider.example:8080/v1/x HTTP/1.1\r\nHost: provider.example:80")
