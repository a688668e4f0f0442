"""Identity over the wire: what a client sees."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llmlab.api.common.v1 import options_pb2
from llmlab.api.common.v1.server_pb2 import GetServerInfoRequest
from llmlab.api.common.v1.server_pb2_grpc import ServerServiceStub
from llmlab.api.identity.v1 import identity_pb2 as pb
from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceStub
from services.identity.settings import IdentitySettings
from services.identity.wiring import build
from services.runtime.auth import ServiceTokenMinter, TokenVerifier
from services.runtime.errors import DomainError
from services.runtime.server import RunningServer
from services.runtime.signing_keys import fetch_signing_keys
from services.runtime.status import error_from_rpc
from tests.support.credentials import Metadata, bearer

if TYPE_CHECKING:
    from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub

PASSWORD = "correct horse"


async def sign_up(identity: IdentityServiceAsyncStub, email: str = "ada@example.org") -> pb.SignUpResponse:
    return await identity.SignUp(pb.SignUpRequest(email=email, password=PASSWORD, name="Ada"))


async def refused(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


@pytest.fixture
async def ada(identity: IdentityServiceAsyncStub) -> pb.SignUpResponse:
    return await sign_up(identity)


@pytest.fixture
def as_ada(ada: pb.SignUpResponse) -> Metadata:
    return bearer(ada.tokens.access_token)


@pytest.fixture
async def as_service(settings: IdentitySettings, ada: pb.SignUpResponse) -> Metadata:
    return bearer(ServiceTokenMinter.from_settings(settings).token(ada.project.project_id))


@pytest.fixture
def verifier(settings: IdentitySettings, channel: grpc.aio.Channel) -> TokenVerifier:
    """What another service verifies with."""
    return TokenVerifier.from_settings(settings, fetch_signing_keys(channel))


async def test_sign_up_log_in_refresh_log_out(
    identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse, verifier: TokenVerifier
) -> None:
    begun = await identity.LogIn(pb.LogInRequest(email="Ada@example.org", password=PASSWORD))
    assert begun.user == ada.user
    assert begun.project == ada.project
    renewed = (await identity.RefreshToken(pb.RefreshTokenRequest(refresh_token=begun.tokens.refresh_token))).tokens
    for tokens in (ada.tokens, begun.tokens, renewed):
        principal = await verifier.verify(tokens.access_token)
        assert (principal.user_id, principal.project_id) == (ada.user.user_id, ada.project.project_id)
        assert principal.permissions == {"READ", "WRITE", "CALL", "MANAGE"}
        assert principal.expires_at == tokens.access_expires_at.seconds
        assert tokens.refresh_expires_at.seconds - principal.expires_at > 0
    await identity.LogOut(pb.LogOutRequest(refresh_token=renewed.refresh_token))
    error = await refused(identity.RefreshToken(pb.RefreshTokenRequest(refresh_token=renewed.refresh_token)))
    assert (error.code, error.reason) == ("UNAUTHENTICATED", "CREDENTIAL_INVALID")


async def test_a_reused_refresh_token_ends_the_session(
    identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse
) -> None:
    stolen = pb.RefreshTokenRequest(refresh_token=ada.tokens.refresh_token)
    owners = (await identity.RefreshToken(stolen)).tokens.refresh_token
    assert (await refused(identity.RefreshToken(stolen))).reason == "REFRESH_REUSED"
    after = await refused(identity.RefreshToken(pb.RefreshTokenRequest(refresh_token=owners)))
    assert after.reason == "CREDENTIAL_INVALID"


async def test_who_am_i(identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse, as_ada: Metadata) -> None:
    me = await identity.WhoAmI(pb.WhoAmIRequest(), metadata=as_ada)
    assert me.user == ada.user
    assert me.project == ada.project
    assert list(me.permissions) == [
        options_pb2.PERMISSION_READ,
        options_pb2.PERMISSION_WRITE,
        options_pb2.PERMISSION_CALL,
        options_pb2.PERMISSION_MANAGE,
    ]
    assert me.expires_at == ada.tokens.access_expires_at
    assert me.key_id == ""


async def test_without_a_credential_or_with_a_false_one_nothing_is_told(
    identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse
) -> None:
    missing = await refused(identity.WhoAmI(pb.WhoAmIRequest()))
    assert (missing.code, missing.reason) == ("UNAUTHENTICATED", "CREDENTIAL_MISSING")
    header, claims, signature = ada.tokens.access_token.split(".")
    for false in ("nonsense", f"{header}.{claims}.{signature[:-8]}AAAAAAAA", f"{header}.{claims}."):
        error = await refused(identity.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(false)))
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "CREDENTIAL_INVALID")


async def test_unknown_addresses_and_wrong_passwords_get_the_same_answer(
    identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse
) -> None:
    wrong = await refused(identity.LogIn(pb.LogInRequest(email="ada@example.org", password="wrong horse")))
    unknown = await refused(identity.LogIn(pb.LogInRequest(email="eve@example.org", password="wrong horse")))
    answers = {(error.code, error.reason, error.message) for error in (wrong, unknown)}
    assert answers == {("UNAUTHENTICATED", "LOGIN_FAILED", "E-mail address or password is wrong.")}


async def test_guessing_is_throttled_and_told_when_to_come_back(
    identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse
) -> None:
    guess = pb.LogInRequest(email="ada@example.org", password="wrong horse")
    reasons = [(await refused(identity.LogIn(guess))).reason for _ in range(3)]
    assert reasons == ["LOGIN_FAILED"] * 3
    error = await refused(identity.LogIn(pb.LogInRequest(email="ada@example.org", password=PASSWORD)))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "LOGIN_THROTTLED")
    assert error.retry_after_ms is not None
    assert error.retry_after_ms > 0


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.SignUpRequest(email="ada", password=PASSWORD, name="Ada"), "email"),
        (pb.SignUpRequest(email="a@example.org", password="short", name="Ada"), "password"),
        (pb.SignUpRequest(email="a@example.org", password="x" * 1025, name="Ada"), "password"),
        (pb.SignUpRequest(email="a@example.org", password=PASSWORD), "name"),
        (pb.SignUpRequest(email="a@example.org", password=PASSWORD, name="  "), "name"),
    ],
)
async def test_a_bad_sign_up_names_the_field(
    identity: IdentityServiceAsyncStub, request_: pb.SignUpRequest, field: str
) -> None:
    error = await refused(identity.SignUp(request_))
    assert (error.code, error.reason, error.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", field)


async def test_a_taken_address(identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse) -> None:
    error = await refused(sign_up(identity, "ADA@example.org"))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")


async def test_an_api_key_from_its_making_to_its_end(
    identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse, as_ada: Metadata, verifier: TokenVerifier
) -> None:
    made = await identity.CreateApiKey(pb.CreateApiKeyRequest(name="laptop", expires_in_s=3600), metadata=as_ada)
    assert made.secret.startswith(made.key.prefix)
    assert made.key.expires_at.seconds - made.key.create_time.seconds == 3600
    exchange = pb.ExchangeApiKeyRequest(api_key=made.secret)
    tokens = (await identity.ExchangeApiKey(exchange)).tokens
    assert not tokens.refresh_token
    assert not tokens.HasField("refresh_expires_at")
    principal = await verifier.verify(tokens.access_token)
    assert (principal.key_id, principal.project_id) == (made.key.key_id, ada.project.project_id)
    assert principal.permissions == {"READ", "WRITE", "CALL"}
    as_key = bearer(tokens.access_token)
    assert (await identity.WhoAmI(pb.WhoAmIRequest(), metadata=as_key)).key_id == made.key.key_id
    forbidden = await refused(identity.ListApiKeys(pb.ListApiKeysRequest(), metadata=as_key))
    assert (forbidden.code, forbidden.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    await identity.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=made.key.key_id), metadata=as_ada)
    listed = (await identity.ListApiKeys(pb.ListApiKeysRequest(), metadata=as_ada)).keys
    assert [(key.name, key.HasField("revoked_at")) for key in listed] == [("laptop", True)]
    revoked = await refused(identity.ExchangeApiKey(exchange))
    assert (revoked.code, revoked.reason) == ("UNAUTHENTICATED", "CREDENTIAL_INVALID")


async def test_keys_come_in_pages_bound_to_their_project(identity: IdentityServiceAsyncStub, as_ada: Metadata) -> None:
    for number in range(5):
        await identity.CreateApiKey(pb.CreateApiKeyRequest(name=f"key {number}"), metadata=as_ada)
    names: list[str] = []
    request = pb.ListApiKeysRequest(page_size=2)
    sizes = []
    while True:
        page = await identity.ListApiKeys(request, metadata=as_ada)
        names.extend(key.name for key in page.keys)
        sizes.append(len(page.keys))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert names == [f"key {number}" for number in range(5)]
    assert sizes == [2, 2, 1]
    as_eve = bearer((await sign_up(identity, "eve@example.org")).tokens.access_token)
    error = await refused(identity.ListApiKeys(request, metadata=as_eve))
    assert (error.reason, error.field) == ("INVALID_PAGE_TOKEN", "page_token")


async def test_a_foreign_key_does_not_exist(identity: IdentityServiceAsyncStub, as_ada: Metadata) -> None:
    made = await identity.CreateApiKey(pb.CreateApiKeyRequest(name="laptop"), metadata=as_ada)
    as_eve = bearer((await sign_up(identity, "eve@example.org")).tokens.access_token)
    error = await refused(identity.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=made.key.key_id), metadata=as_eve))
    assert (error.code, error.reason) == ("NOT_FOUND", "NOT_FOUND")


async def test_a_key_cannot_carry_the_service_permission(identity: IdentityServiceAsyncStub, as_ada: Metadata) -> None:
    request = pb.CreateApiKeyRequest(name="x", permissions=[options_pb2.PERMISSION_SERVICE])
    error = await refused(identity.CreateApiKey(request, metadata=as_ada))
    assert (error.code, error.field) == ("INVALID_ARGUMENT", "permissions[0]")


async def test_a_run_acts_for_the_caller_until_it_is_told_to_stop(
    identity: IdentityServiceAsyncStub,
    ada: pb.SignUpResponse,
    as_ada: Metadata,
    as_service: Metadata,
    verifier: TokenVerifier,
) -> None:
    create = pb.CreateDelegationRequest(purpose="run_1")
    delegation = await identity.CreateDelegation(create, metadata=as_ada)
    assert await identity.CreateDelegation(create, metadata=as_ada) == delegation
    issue = pb.IssueDelegatedTokenRequest(delegation_id=delegation.delegation_id)
    assert (await refused(identity.IssueDelegatedToken(issue, metadata=as_ada))).code == "PERMISSION_DENIED"
    issued = (await identity.IssueDelegatedToken(issue, metadata=as_service)).tokens
    principal = await verifier.verify(issued.access_token)
    assert (principal.kind, principal.delegation_id) == ("delegated", delegation.delegation_id)
    assert principal.user_id == ada.user.user_id
    assert principal.permissions == {"CALL"}
    revoke = pb.RevokeDelegationRequest(delegation_id=delegation.delegation_id)
    for _ in range(2):
        await identity.RevokeDelegation(revoke, metadata=as_service)
    ended = await refused(identity.IssueDelegatedToken(issue, metadata=as_service))
    assert (ended.code, ended.reason) == ("FAILED_PRECONDITION", "DELEGATION_ENDED")


async def test_a_service_of_another_project_gets_no_token(
    identity: IdentityServiceAsyncStub, settings: IdentitySettings, as_ada: Metadata
) -> None:
    delegation = await identity.CreateDelegation(pb.CreateDelegationRequest(purpose="run_1"), metadata=as_ada)
    eve = await sign_up(identity, "eve@example.org")
    as_foreign = bearer(ServiceTokenMinter.from_settings(settings).token(eve.project.project_id))
    issue = pb.IssueDelegatedTokenRequest(delegation_id=delegation.delegation_id)
    assert (await refused(identity.IssueDelegatedToken(issue, metadata=as_foreign))).code == "NOT_FOUND"


async def test_a_service_learns_its_project_and_that_it_is_nobody(
    identity: IdentityServiceAsyncStub, ada: pb.SignUpResponse, as_service: Metadata
) -> None:
    me = await identity.WhoAmI(pb.WhoAmIRequest(), metadata=as_service)
    assert not me.HasField("user")
    assert me.project == ada.project
    assert list(me.permissions) == [options_pb2.PERMISSION_SERVICE]


async def test_the_first_start_leaves_a_key_that_manages_the_project(
    identity: IdentityServiceAsyncStub, settings: IdentitySettings
) -> None:
    api_key = json.loads((settings.home / "credentials.json").read_text())["api_key"]
    tokens = (await identity.ExchangeApiKey(pb.ExchangeApiKeyRequest(api_key=api_key))).tokens
    me = await identity.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(tokens.access_token))
    assert me.user.email == "owner@localhost"
    assert options_pb2.PERMISSION_MANAGE in me.permissions


async def test_tokens_outlive_a_restart_and_are_good_at_every_replica(settings: IdentitySettings) -> None:
    async with build(settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        ada = await sign_up(IdentityServiceStub(channel))
    refresh_token = ada.tokens.refresh_token
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(build(settings)) for _ in range(2)]
        for replica in replicas:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(replica.address))
            stub: IdentityServiceAsyncStub = IdentityServiceStub(channel)
            me = await stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(ada.tokens.access_token))
            assert me.user == ada.user
            renewed = await stub.RefreshToken(pb.RefreshTokenRequest(refresh_token=refresh_token))
            refresh_token = renewed.tokens.refresh_token


async def test_the_server_says_what_it_runs_on(channel: grpc.aio.Channel, settings: IdentitySettings) -> None:
    stub: Any = ServerServiceStub(channel)
    info = await stub.GetServerInfo(GetServerInfoRequest())
    assert info.service == "identity"
    dialect = "sqlite" if settings.database_url.startswith("sqlite") else "postgresql"
    assert f"database:{dialect}" in info.features
    assert "auth" in info.features


async def test_it_is_healthy(server: RunningServer) -> None:
    assert await server.health.check()
