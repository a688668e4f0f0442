"""The image's entry point, its health check, and the port for probes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.launch import COMMANDS, ENVIRONMENT
from services.runtime.settings import SettingsError
from tests.support.certificates import pem_files
from tests.support.cluster import free_ports
from tests.support.echo import running_echo
from tests.support.processes import TESTS

Status = health_pb2.HealthCheckResponse
ROOT = TESTS.parent


async def launched(*arguments: str, **environ: str) -> tuple[int | None, str, str]:
    """Exit status and output of the entry point."""
    command = [sys.executable, "-m", "services.runtime.launch", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_a_command_that_does_not_exist_is_told_those_that_do() -> None:
    status, _, errors = await launched("nothing")
    assert status == 2
    assert all(command in errors for command in COMMANDS)


def test_only_settings_that_exist_are_preset() -> None:
    assert {variable for preset in ENVIRONMENT.values() for variable in preset} == {"LLMLAB_ORCHESTRATOR_WORKERS"}


async def test_the_orchestrator_is_told_nothing_or_to_work() -> None:
    status, _, errors = await launched("orchestrator", "player")
    assert (status, errors) == (2, "orchestrator: 'player' is not known; it takes nothing, or: worker\n")


async def test_the_health_command_says_whether_the_process_is_ready(tmp_path: Path) -> None:
    certificate, key = pem_files(tmp_path)
    # Mutual TLS on the port of the service: the probe needs none of it.
    tls: Any = {"tls_certificate": certificate, "tls_key": key, "tls_ca": certificate}
    async with running_echo(health_port=0, **tls) as echo:
        port = str(echo.server.health_port)
        assert await launched("health", LLMLAB_HEALTH_PORT=port) == (0, "ready\n", "")
        await echo.server.health.stop()
        assert await launched("health", LLMLAB_HEALTH_PORT=port) == (1, "not ready\n", "")
    assert await launched("health", LLMLAB_HEALTH_PORT=port) == (1, "", "no answer: UNAVAILABLE\n")
    assert (await launched("health", LLMLAB_HEALTH_PORT=""))[0] == 2


async def test_the_health_port_answers_nothing_else() -> None:
    async with (
        running_echo(health_port=0) as echo,
        grpc.aio.insecure_channel(f"127.0.0.1:{echo.server.health_port}") as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest(service="liveness"))).status == Status.SERVING
        other: Any = channel.unary_unary("/llmlab.api.common.v1.ServerService/GetServerInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_health_port_that_is_taken_is_named() -> None:
    async with running_echo(health_port=0) as echo:
        with pytest.raises(SettingsError, match=r"^LLMLAB_ECHO_HEALTH_PORT: cannot listen"):
            async with running_echo(health_port=echo.server.health_port):
                pass


async def test_a_worker_serves_no_api_and_stops_at_sigterm(tmp_path: Path) -> None:
    health, port = free_ports(2)
    environ = {"LLMLAB_HOME": str(tmp_path), "LLMLAB_HEALTH_PORT": str(health), "LLMLAB_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.runtime.launch", "worker"),
        cwd=ROOT,
        env={**os.environ, **environ, "LLMLAB_AUTH_SERVICE_KEY": "ab" * 32},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert b"orchestrator serves on" in await process.stdout.readline()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{health}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            check = stub.Check
            assert (await check(health_pb2.HealthCheckRequest(service="readiness"))).status == Status.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await check(health_pb2.HealthCheckRequest(service="llmlab.api.orchestrator.v1.RunService"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
