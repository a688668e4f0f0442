"""How identity starts: on other settings, and not on bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from llmlab.api.identity.v1 import identity_pb2 as pb
from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceStub
from services.identity.settings import IdentitySettings
from services.identity.signing_keys import SigningKey
from services.identity.wiring import build
from services.runtime.settings import SettingsError

if TYPE_CHECKING:
    from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub

SERVICE_KEY = "5e" * 32


async def test_the_operators_seeds_sign_and_are_listed(tmp_path: Path) -> None:
    seeds = f"{'11' * 32},{'22' * 32}"
    settings = IdentitySettings(port=0, home=tmp_path, auth_service_key=SERVICE_KEY, signing_seeds=seeds)
    async with build(settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub: IdentityServiceAsyncStub = IdentityServiceStub(channel)
        keys = (await stub.ListSigningKeys(pb.ListSigningKeysRequest())).keys
    expected = [SigningKey(bytes([byte]) * 32, 0, 0) for byte in (0x11, 0x22)]
    assert [(key.key_id, key.public_key) for key in keys] == [(key.key_id, key.public_bytes) for key in expected]
    assert not any(key.HasField("retires_at") for key in keys)


async def test_without_authentication_everybody_is_local(tmp_path: Path) -> None:
    settings = IdentitySettings(port=0, home=tmp_path, auth_required=False)
    async with build(settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub: IdentityServiceAsyncStub = IdentityServiceStub(channel)
        me = await stub.WhoAmI(pb.WhoAmIRequest())
    assert (me.user.user_id, me.project.project_id) == ("local", "local")
    assert not me.HasField("expires_at")
    assert not (tmp_path / "credentials.json").exists()


async def test_sign_up_can_be_closed(tmp_path: Path) -> None:
    settings = IdentitySettings(port=0, home=tmp_path, auth_service_key=SERVICE_KEY, sign_up_enabled=False)
    async with build(settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub: IdentityServiceAsyncStub = IdentityServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SignUp(pb.SignUpRequest(email="a@example.org", password="correct horse", name="Ada"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"auth_service_key": ""}, "LLMLAB_IDENTITY_AUTH_SERVICE_KEY"),
        ({"signing_key_life_s": 3600, "signing_key_ahead_s": 3600}, "LLMLAB_IDENTITY_SIGNING_KEY_AHEAD_S"),
        ({"database_url": "mysql://x"}, "LLMLAB_IDENTITY_DATABASE_URL"),
        ({"host": "0.0.0.0", "auth_required": False}, "LLMLAB_IDENTITY_HOST"),
    ],
)
async def test_a_setting_that_cannot_be_obeyed_is_named(
    tmp_path: Path, changes: dict[str, object], variable: str
) -> None:
    base: dict[str, object] = {"port": 0, "home": tmp_path, "auth_service_key": SERVICE_KEY}
    settings = IdentitySettings.model_validate({**base, **changes})
    with pytest.raises(SettingsError, match=variable):
        async with build(settings):
            pass
    assert not (tmp_path / "credentials.json").exists()


async def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").mkdir()
    settings = IdentitySettings(port=0, home=tmp_path, auth_service_key=SERVICE_KEY)
    with pytest.raises(SettingsError, match=r"credentials\.json cannot be written"):
        async with build(settings):
            pass


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    async with build(IdentitySettings(port=0, home=tmp_path / "a", auth_service_key=SERVICE_KEY)) as first:
        settings = IdentitySettings(port=first.port, home=tmp_path / "b", auth_service_key=SERVICE_KEY)
        with pytest.raises(SettingsError, match="LLMLAB_IDENTITY_PORT"):
            async with build(settings):
                pass
