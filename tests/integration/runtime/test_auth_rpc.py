"""Who may call what, over real gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpc.aio import AioRpcError

from llmlab.api.identity.v1 import identity_pb2, identity_pb2_grpc
from services.runtime.auth import SERVICE_KEY_ID, Principal, TokenVerifier, service_private_keys, sign_token
from services.runtime.channel import call_metadata, open_channel
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import DomainError, Unauthenticated
from services.runtime.server import serve
from services.runtime.signing_keys import fetch_signing_keys
from services.runtime.status import error_from_rpc
from tests.support.echo import EchoServicer, echo_settings, request, running_echo

_Identity: Any = identity_pb2_grpc.IdentityServiceServicer


async def refusal(call: Any) -> DomainError:
    with pytest.raises(AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


def token_until(expires_at: float) -> str:
    principal = Principal(
        subject="gateway", project_id="prj_1", permissions=frozenset({"READ"}), kind="service", expires_at=expires_at
    )
    (key,) = service_private_keys(echo_settings())
    return sign_token(principal, key, key_id=SERVICE_KEY_ID, issued_at=int(time.time()) - 60)


@pytest.mark.parametrize(
    ("method", "permissions", "reason"),
    [
        ("EchoPublic", None, ""),
        ("Echo", None, "CREDENTIAL_MISSING"),
        ("Echo", ["READ"], ""),
        ("Echo", ["WRITE", "SERVICE"], "PERMISSION_DENIED"),
        ("EchoAuthenticated", None, "CREDENTIAL_MISSING"),
        ("EchoAuthenticated", ["CALL"], ""),
        ("EchoService", ["READ", "MANAGE"], "PERMISSION_DENIED"),
        ("EchoService", ["SERVICE"], ""),
        ("EchoUndeclared", ["READ", "WRITE", "CALL", "MANAGE", "SERVICE"], "PERMISSION_DENIED"),
    ],
)
async def test_each_rpc_needs_what_its_contract_declares(
    method: str, permissions: list[str] | None, reason: str
) -> None:
    async with running_echo() as echo:
        metadata = None if permissions is None else echo.metadata(*permissions)
        call = getattr(echo.stub, method)(request("in"), metadata=metadata)
        if reason:
            assert (await refusal(call)).reason == reason
            assert echo.servicer.requests == []
        else:
            assert (await call).text == "in"


@pytest.mark.parametrize(
    ("method", "permissions", "advice"),
    [("Echo", None, "LLMLAB_API_KEY"), ("Echo", ["CALL"], "needs the permission READ; this credential carries CALL")],
)
async def test_a_refusal_says_what_to_do_next(method: str, permissions: list[str] | None, advice: str) -> None:
    async with running_echo() as echo:
        metadata = None if permissions is None else echo.metadata(*permissions)
        assert advice in (await refusal(getattr(echo.stub, method)(request(), metadata=metadata))).message


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer abc", "bearer a.b.c", "Bearer " + "x" * 9_000]
)
async def test_a_malformed_credential_is_refused(value: str) -> None:
    async with running_echo() as echo:
        error = await refusal(echo.stub.Echo(request(), metadata=(("authorization", value),)))

    assert error.code == "UNAUTHENTICATED" or "metadata" in error.message


async def test_the_handler_learns_who_calls_and_can_pass_the_token_on() -> None:
    async def answer(_: Any) -> str:
        principal = current_principal()
        return f"{principal.subject} {principal.project_id} {principal.kind} {bearer_token()}"

    async with running_echo(EchoServicer(answer=answer)) as echo:
        token = echo.minter.token("prj_7", permissions=["READ"])
        said = (await echo.stub.Echo(request(), metadata=call_metadata(token))).text

    assert said == f"echo prj_7 service {token}"


async def test_nobody_calls_outside_a_call() -> None:
    with pytest.raises(Unauthenticated):
        current_principal()
    assert bearer_token() == ""


async def test_a_public_rpc_knows_no_caller() -> None:
    async def answer(_: Any) -> str:
        return current_principal().subject

    async with running_echo(EchoServicer(answer=answer)) as echo:
        assert (await refusal(echo.stub.EchoPublic(request(), metadata=echo.metadata()))).code == "UNAUTHENTICATED"


async def test_concurrent_callers_are_not_mixed_up() -> None:
    together = asyncio.Barrier(5)

    async def answer(_: Any) -> str:
        await together.wait()
        return current_principal().project_id

    async with running_echo(EchoServicer(answer=answer)) as echo:
        projects = [f"prj_{number}" for number in range(5)]
        tokens = [echo.minter.token(project, permissions=["READ"]) for project in projects]
        calls = [echo.stub.Echo(request(), metadata=call_metadata(token)) for token in tokens]
        assert [answer.text for answer in await asyncio.gather(*calls)] == projects


async def test_an_expired_credential_is_refused_from_the_cache_too() -> None:
    settings = echo_settings()
    now_s = time.time()
    shift_s = 0.0
    (key,) = service_private_keys(settings)
    verifier = TokenVerifier([key.public_key()], now_s=lambda: now_s + shift_s)
    async with running_echo(verifier=verifier) as echo:
        await echo.stub.Echo(request(), metadata=echo.metadata())
        shift_s = 3_600.0
        error = await refusal(echo.stub.Echo(request(), metadata=echo.metadata()))

    assert error.reason == "CREDENTIAL_EXPIRED"


class IdentityStandIn(_Identity):  # type: ignore[misc]
    """Identity as far as others ask it for keys."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    async def ListSigningKeys(self, _request: Any, _context: Any) -> Any:  # noqa: N802 (the contract names it)
        key = identity_pb2.SigningKey(key_id="k1", public_key=self._public_key)
        return identity_pb2.ListSigningKeysResponse(keys=[key])


async def test_a_user_s_token_is_verified_with_the_keys_that_identity_publishes() -> None:
    key = Ed25519PrivateKey.generate()
    user = Principal(subject="usr_1", project_id="prj_1", permissions=frozenset({"READ"}), expires_at=time.time() + 60)
    token = sign_token(user, key, key_id="k1", issued_at=int(time.time()))
    settings = echo_settings()
    trusted = TokenVerifier.from_settings(settings)
    async with (
        serve(settings, [IdentityStandIn(key)], verifier=trusted) as identity,
        open_channel(identity.address, settings) as channel,
        running_echo(verifier=TokenVerifier.from_settings(settings, fetch_signing_keys(channel))) as echo,
    ):
        assert (await echo.stub.Echo(request("in"), metadata=call_metadata(token))).text == "in"


async def silence(_: Any) -> AsyncIterator[str]:
    yield "first"
    await asyncio.Event().wait()


@pytest.mark.parametrize(("method", "grace_s"), [("Watch", 600.0), ("Count", 0.0)])
async def test_a_stream_ends_when_its_credential_expires(method: str, grace_s: float) -> None:
    # The expiry lies in the near future, because the stream has to begin before it.
    async with running_echo(EchoServicer(stream=silence), auth_stream_grace_s=grace_s) as echo:
        call = getattr(echo.stub, method)(request(), metadata=call_metadata(token_until(int(time.time()) + 2)))
        assert (await call.read()).text == "first"
        with pytest.raises(AioRpcError) as caught:
            await call.read()

    assert error_from_rpc(caught.value).reason == "CREDENTIAL_EXPIRED"


async def test_a_finite_stream_may_outlive_its_credential_for_a_while() -> None:
    expires_at = int(time.time()) + 1
    outlived = asyncio.Event()

    async def stream(_: Any) -> AsyncIterator[str]:
        yield "first"
        # One tick past the expiry, whenever that is.
        asyncio.get_running_loop().call_later(max(0.0, expires_at - time.time()) + 0.05, outlived.set)
        await outlived.wait()
        yield "last"

    async with running_echo(EchoServicer(stream=stream)) as echo:
        call = echo.stub.Count(request(), metadata=call_metadata(token_until(expires_at)))
        assert [answer.text async for answer in call] == ["first", "last"]


async def test_switched_off_everybody_may_do_everything() -> None:
    async def answer(_: Any) -> str:
        return current_principal().project_id

    async with running_echo(EchoServicer(answer=answer), auth_required=False) as echo:
        assert (await echo.stub.EchoService(request())).text == "local"
        assert (await refusal(echo.stub.EchoUndeclared(request()))).reason == "PERMISSION_DENIED"
