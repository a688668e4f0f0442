"""Opening a server: addresses, health, reflection, TLS, what it says about itself."""

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import llmlab
from llmlab.api.common.v1 import server_pb2, server_pb2_grpc
from services.runtime import telemetry
from services.runtime.auth import TokenVerifier
from services.runtime.channel import open_channel
from services.runtime.loop_lag import loop_lag_ms, watch_loop_lag
from services.runtime.server import serve
from services.runtime.settings import ServiceSettings, SettingsError
from tests.support.certificates import pem_files
from tests.support.echo import Echo, EchoServicer, echo_settings, request, running_echo

Status = health_pb2.HealthCheckResponse


class GatewayLikeSettings(ServiceSettings, service="gateway"):
    """Settings whose variables are the gateway's."""


async def opened(settings: ServiceSettings, **options: Any) -> None:
    async with serve(settings, [EchoServicer()], **options):
        pass


async def health_of(echo: Echo, name: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(echo.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=name))).status)


class TestAddress:
    async def test_a_taken_port_names_the_setting(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            settings = GatewayLikeSettings(port=port, auth_required=False)
            with pytest.raises(SettingsError, match=f"^LLMLAB_GATEWAY_PORT: cannot listen on 127.0.0.1:{port}"):
                await opened(settings, verifier=None)

    async def test_two_servers_never_share_a_port(self) -> None:
        async with running_echo() as echo:
            with pytest.raises(SettingsError, match="LLMLAB_ECHO_PORT"):
                await opened(echo_settings(port=echo.server.port, auth_required=False), verifier=None)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    async def test_an_open_address_needs_authentication(self, host: str) -> None:
        settings = echo_settings(host=host, auth_required=False)
        with pytest.raises(SettingsError, match=r"^LLMLAB_ECHO_HOST: .*LLMLAB_ECHO_AUTH_REQUIRED=true"):
            await opened(settings, verifier=None)

    async def test_authentication_needs_a_verifier(self) -> None:
        with pytest.raises(SettingsError, match="LLMLAB_ECHO_AUTH_REQUIRED"):
            await opened(echo_settings(), verifier=None)

    async def test_a_servicer_must_extend_a_generated_class(self) -> None:
        with pytest.raises(TypeError, match="object extends no generated Servicer class"):
            async with serve(echo_settings(auth_required=False), [object()], verifier=None):
                pass


class TestHealth:
    async def test_a_server_without_dependencies_is_ready(self) -> None:
        async with running_echo() as echo:
            names = ["", "liveness", "readiness", "llmlab.test.v1.EchoService"]
            assert [await health_of(echo, name) for name in names] == [Status.SERVING] * 4
            with pytest.raises(AioRpcError) as caught:
                await health_of(echo, "nothing")

        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    async def test_readiness_follows_the_checks_and_liveness_does_not(self) -> None:
        broken = False

        async def database() -> None:
            if broken:
                raise ConnectionError("no database")

        settings = echo_settings(auth_required=False)
        async with (
            serve(settings, [EchoServicer()], verifier=None, checks={"database": database}) as server,
            open_channel(server.address, settings) as channel,
        ):
            stub: Any = health_pb2_grpc.HealthStub(channel)

            async def status(name: str) -> int:
                return int((await stub.Check(health_pb2.HealthCheckRequest(service=name))).status)

            assert await status("readiness") == Status.SERVING
            broken = True
            assert not await server.health.check()
            assert [await status(name) for name in ("", "readiness")] == [Status.NOT_SERVING] * 2
            assert await status("liveness") == Status.SERVING
            broken = False
            assert await server.health.check()
            assert await status("readiness") == Status.SERVING

    async def test_a_check_that_hangs_has_failed(self) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        settings = echo_settings(auth_required=False, health_timeout_s=0.02)
        async with serve(settings, [EchoServicer()], verifier=None, checks={"database": hang}) as server:
            assert not await server.health.check()

    async def test_checks_are_polled(self) -> None:
        rounds = asyncio.Semaphore(0)

        async def database() -> None:
            rounds.release()

        settings = echo_settings(auth_required=False, health_interval_s=0.01)
        async with serve(settings, [EchoServicer()], verifier=None, checks={"database": database}):
            for _ in range(3):
                await rounds.acquire()

    async def test_a_watcher_hears_that_the_server_stops(self) -> None:
        async with running_echo() as echo:
            watching: Any = health_pb2_grpc.HealthStub(echo.channel)
            watch = watching.Watch(health_pb2.HealthCheckRequest(service="readiness"))
            assert (await watch.read()).status == Status.SERVING
            await echo.server.health.stop()
            assert (await watch.read()).status == Status.NOT_SERVING
            # A stopping server does not become ready again.
            assert not await echo.server.health.check()


class TestInformation:
    async def test_a_server_says_what_it_is(self) -> None:
        async with running_echo() as echo:
            stub = server_pb2_grpc.ServerServiceStub(echo.channel)
            info = await stub.GetServerInfo(server_pb2.GetServerInfoRequest())

        assert (info.service, info.version) == ("echo", llmlab.__version__)
        assert list(info.features) == ["auth", "reflection"]
        assert info.started_at.seconds > 0
        assert info.uptime_s >= 0

    @pytest.mark.parametrize("allowed", [True, False])
    async def test_reflection_is_there_where_the_settings_allow_it(self, allowed: bool) -> None:
        async with running_echo(reflection=allowed) as echo:
            stub = reflection_pb2_grpc.ServerReflectionStub(echo.channel)
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            if allowed:
                listed = (await call.read()).list_services_response.service
                assert {"llmlab.test.v1.EchoService", "grpc.health.v1.Health"} <= {each.name for each in listed}
            else:
                with pytest.raises(AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    @pytest.mark.parametrize("allowed", [True, False])
    async def test_channelz_is_there_where_the_settings_allow_it(self, allowed: bool) -> None:
        async with running_echo(channelz=allowed) as echo:
            stub = channelz_pb2_grpc.ChannelzStub(echo.channel)
            call = stub.GetServers(channelz_pb2.GetServersRequest())
            if allowed:
                assert (await call).server
            else:
                with pytest.raises(AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


class TestTelemetry:
    async def test_calls_are_counted_by_method_and_code(self) -> None:
        telemetry.reset()
        async with running_echo() as echo:
            await echo.stub.Echo(request(), metadata=echo.metadata())
            with pytest.raises(AioRpcError):
                await echo.stub.Echo(request())
        figures = telemetry.snapshot()

        assert figures["rpcs{code=OK,method=EchoService/Echo,service=echo}"] == 1
        assert figures["rpcs{code=UNAUTHENTICATED,method=EchoService/Echo,service=echo}"] == 1
        assert figures["rpc_ms{method=EchoService/Echo,service=echo}"]["count"] == 2

    async def test_the_loop_s_lag_is_recorded(self) -> None:
        telemetry.reset()
        async with watch_loop_lag("echo", 0.001):
            probes = telemetry.histogram("loop_lag_ms", service="echo")
            while probes.count < 3:  # noqa: ASYNC110 (a probe tells nobody that it ran)
                await asyncio.sleep(0)
            # Hold the loop up for five intervals.
            time.sleep(0.005)  # noqa: ASYNC251
            late = probes.count + 1
            while probes.count < late:  # noqa: ASYNC110
                await asyncio.sleep(0)

        assert probes.maximum >= 3
        assert 0 <= loop_lag_ms() <= probes.maximum


class TestTls:
    @pytest.mark.parametrize("mutual", [False, True])
    async def test_a_channel_that_trusts_the_certificate_gets_through(self, tmp_path: Path, mutual: bool) -> None:
        certificate, key = pem_files(tmp_path)
        server_settings = echo_settings(
            tls_certificate=certificate, tls_key=key, tls_ca=certificate if mutual else None
        )
        known = echo_settings(tls_certificate=certificate, tls_key=key, tls_ca=certificate)
        stranger = echo_settings(tls_ca=certificate, retry_attempts=1)
        verifier = TokenVerifier.from_settings(server_settings)
        info = server_pb2.GetServerInfoRequest()
        async with serve(server_settings, [EchoServicer()], verifier=verifier) as server:
            target = f"localhost:{server.port}"
            async with open_channel(target, known) as channel:
                answer = await server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(info)
                assert "tls" in answer.features
            async with open_channel(target, stranger) as channel:
                call = server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(info)
                if mutual:
                    with pytest.raises(AioRpcError):
                        await call
                else:
                    await call

    async def test_half_a_pair_names_the_other_half(self, tmp_path: Path) -> None:
        certificate, _ = pem_files(tmp_path)
        with pytest.raises(SettingsError, match=r"^LLMLAB_ECHO_TLS_KEY: is not set"):
            await opened(echo_settings(tls_certificate=certificate, auth_required=False), verifier=None)

    async def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        settings = echo_settings(tls_certificate=tmp_path / "no.pem", tls_key=tmp_path / "no.pem", auth_required=False)
        with pytest.raises(SettingsError, match=r"^LLMLAB_ECHO_TLS_KEY: .*no\.pem cannot be read: No such file"):
            await opened(settings, verifier=None)
