"""What Prometheus reads."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest

from services.runtime import telemetry, telemetry_port
from services.runtime.exposition import exposition
from services.runtime.settings import SettingsError
from tests.support.echo import request, running_echo


async def closed(writer: asyncio.StreamWriter) -> None:
    """Closes a connection and waits until it is gone."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def asked(port: int | None, text: bytes) -> tuple[bytes, str]:
    """First line and body of the answer to a request; both empty where the connection is closed unanswered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    answer = b""
    # What the server has not read makes its end of the connection a reset.
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
    await closed(writer)
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], body.decode()


async def test_prometheus_reads_what_the_process_counts() -> None:
    telemetry.reset()
    async with running_echo(telemetry_port=0) as echo:
        await echo.stub.Echo(request(), metadata=echo.metadata())
        status, text = await asked(echo.server.telemetry_port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        assert status == b"HTTP/1.1 200 OK"
        assert "# TYPE llmlab_rpcs_total counter\n" in text
        assert 'llmlab_rpcs_total{code="OK",method="EchoService/Echo",service="echo"} 1\n' in text
        assert 'llmlab_rpc_ms_bucket{method="EchoService/Echo",service="echo",le="+Inf"} 1\n' in text
        (resident,) = re.findall(r'^llmlab_resident_memory_bytes\{service="echo"\} (\d+)$', text, re.MULTILINE)
        assert int(resident) > 10_000_000
        for refused, expected in {
            b"GET / HTTP/1.1\r\n\r\n": b"HTTP/1.1 404 Not Found",
            b"POST /metrics HTTP/1.1\r\n\r\n": b"HTTP/1.1 405 Method Not Allowed",
            b"x" * 20_000: b"",
        }.items():
            assert (await asked(echo.server.telemetry_port, refused))[0] == expected
    assert "resident_memory_bytes" not in exposition(telemetry.series())


async def test_readers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_port, "READERS_MAX", 1)
    async with running_echo(telemetry_port=0) as echo:
        _, silent = await asyncio.open_connection("127.0.0.1", echo.server.telemetry_port)
        assert await asked(echo.server.telemetry_port, b"GET /metrics HTTP/1.1\r\n\r\n") == (b"", "")
        await closed(silent)


async def test_a_taken_port_is_named() -> None:
    async with running_echo(telemetry_port=0) as echo:
        with pytest.raises(SettingsError, match=r"^LLMLAB_ECHO_TELEMETRY_PORT: cannot listen"):
            async with running_echo(telemetry_port=echo.server.telemetry_port):
                pass


def test_every_kind_of_series_has_its_form() -> None:
    telemetry.reset()
    telemetry.counter("holds", reason='a "quoted"\nline\\').add(2)
    telemetry.level("breakers_open").add(1)
    telemetry.level("breakers_open").add(-1)
    telemetry.histogram("wait_ms").record(0.015)
    with telemetry.gauge("load", lambda: 0.5, service="x"):
        text = exposition(telemetry.series())
    assert r'llmlab_holds_total{reason="a \"quoted\"\nline\\"} 2' in text
    assert "# TYPE llmlab_breakers_open gauge\nllmlab_breakers_open 0\n" in text
    assert 'llmlab_load{service="x"} 0.5\n' in text
    assert 'llmlab_wait_ms_bucket{le="0.01"} 0\nllmlab_wait_ms_bucket{le="0.02"} 1\n' in text
    assert "llmlab_wait_ms_sum 0.015\nllmlab_wait_ms_count 1\n" in text
