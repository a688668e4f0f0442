"""The identity service on the wire: protobuf to domain and back, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1.options_pb2 import Permission
from llmlab.api.identity.v1 import identity_pb2 as pb
from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceServicer
from services.identity.accounts import Project, User
from services.identity.credentials import Credentials
from services.identity.keyring import Keyring
from services.identity.keys import ApiKey
from services.identity.logins import Logins, SessionTokens
from services.identity.signing_keys import retires_at_us
from services.identity.store import IdentityStore
from services.runtime.auth import LOCAL_PRINCIPAL, Principal
from services.runtime.context import current_principal
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_PAGE_SIZE: Final = 50
_US_PER_S: Final = 1_000_000


class IdentityServicer(IdentityServiceServicer):
    """Serves llmlab.api.identity.v1.IdentityService."""

    def __init__(self, store: IdentityStore, logins: Logins, credentials: Credentials, keyring: Keyring) -> None:
        self._store = store
        self._logins = logins
        self._credentials = credentials
        self._keyring = keyring

    async def SignUp(self, request: pb.SignUpRequest, context: Context) -> pb.SignUpResponse:
        """Makes an account and logs it in."""
        begun = await self._logins.sign_up(
            email=request.email,
            password=request.password,
            name=request.name,
            project_name=request.project_name,
            peer=context.peer(),
        )
        return pb.SignUpResponse(
            user=_user(begun.user), project=_project(begun.project), tokens=_session_tokens(begun.tokens)
        )

    async def LogIn(self, request: pb.LogInRequest, context: Context) -> pb.LogInResponse:
        """Begins a session."""
        begun = await self._logins.log_in(
            email=request.email, password=request.password, project_id=request.project_id, peer=context.peer()
        )
        return pb.LogInResponse(
            user=_user(begun.user), project=_project(begun.project), tokens=_session_tokens(begun.tokens)
        )

    async def RefreshToken(self, request: pb.RefreshTokenRequest, context: Context) -> pb.RefreshTokenResponse:
        """Renews a session."""
        return pb.RefreshTokenResponse(tokens=_session_tokens(await self._logins.refresh(request.refresh_token)))

    async def LogOut(self, request: pb.LogOutRequest, context: Context) -> pb.LogOutResponse:
        """Ends a session."""
        await self._logins.log_out(request.refresh_token)
        return pb.LogOutResponse()

    async def ExchangeApiKey(self, request: pb.ExchangeApiKeyRequest, context: Context) -> pb.ExchangeApiKeyResponse:
        """Gives an access token for an API key."""
        access = await self._credentials.exchange_api_key(request.api_key)
        return pb.ExchangeApiKeyResponse(tokens=_session_tokens(SessionTokens(access)))

    async def ListSigningKeys(self, request: pb.ListSigningKeysRequest, context: Context) -> pb.ListSigningKeysResponse:
        """Lists the public keys that verifiers need."""
        policy = self._keyring.policy
        return pb.ListSigningKeysResponse(
            keys=[
                pb.SigningKey(
                    key_id=key.key_id,
                    public_key=key.public_bytes,
                    retires_at=_time(retires_at_us(key, policy)) if rank else None,
                )
                for rank, key in enumerate(self._keyring.published())
            ]
        )

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """Describes the caller."""
        principal = current_principal()
        user, project = await self._describe(principal)
        expires = math.isfinite(principal.expires_at)
        return pb.WhoAmIResponse(
            user=_user(user) if user else None,
            project=_project(project),
            permissions=_permissions(principal.permissions),
            expires_at=_time(int(principal.expires_at) * _US_PER_S) if expires else None,
            key_id=principal.key_id,
        )

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        """Makes an API key."""
        key, text = await self._credentials.create_api_key(
            current_principal(),
            name=request.name,
            permissions=frozenset(_permission_name(permission) for permission in request.permissions),
            expires_in_s=request.expires_in_s,
        )
        return pb.CreateApiKeyResponse(key=_api_key(key), secret=text)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        """Lists a page of the project's keys."""
        principal = current_principal()
        fingerprint = filter_fingerprint("ListApiKeys", principal.project_id)
        position = decode_page_token(fingerprint, request.page_token)
        page_size = request.page_size or _DEFAULT_PAGE_SIZE
        after = str(position[0]) if position else ""
        keys = await self._credentials.list_api_keys(principal, after_key_id=after, limit=page_size + 1)
        more = len(keys) > page_size
        return pb.ListApiKeysResponse(
            keys=[_api_key(key) for key in keys[:page_size]],
            next_page_token=encode_page_token(fingerprint, (keys[page_size - 1].key_id,)) if more else "",
        )

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        """Ends an API key."""
        await self._credentials.revoke_api_key(current_principal(), request.key_id)
        return pb.RevokeApiKeyResponse()

    async def CreateDelegation(
        self, request: pb.CreateDelegationRequest, context: Context
    ) -> pb.CreateDelegationResponse:
        """Lets a run act for the caller."""
        delegation = await self._credentials.create_delegation(
            current_principal(), purpose=request.purpose, expires_in_s=request.expires_in_s
        )
        return pb.CreateDelegationResponse(
            delegation_id=delegation.delegation_id, expires_at=_time(delegation.expires_at_us)
        )

    async def IssueDelegatedToken(
        self, request: pb.IssueDelegatedTokenRequest, context: Context
    ) -> pb.IssueDelegatedTokenResponse:
        """Gives a service an access token under a delegation."""
        project_id = current_principal().project_id
        access = await self._credentials.issue_delegated_token(project_id, request.delegation_id)
        return pb.IssueDelegatedTokenResponse(tokens=_session_tokens(SessionTokens(access)))

    async def RevokeDelegation(
        self, request: pb.RevokeDelegationRequest, context: Context
    ) -> pb.RevokeDelegationResponse:
        """Ends a delegation."""
        await self._credentials.revoke_delegation(current_principal().project_id, request.delegation_id)
        return pb.RevokeDelegationResponse()

    async def _describe(self, principal: Principal) -> tuple[User | None, Project]:
        if principal is LOCAL_PRINCIPAL:  # Authentication is off: nobody has an account.
            return User(principal.user_id, "", principal.user_id, "", 0), Project(principal.project_id, "local", 0)
        user = await self._store.get_user(principal.user_id) if principal.user_id else None
        return user, await self._store.get_project(principal.project_id)


def _user(user: User) -> pb.User:
    return pb.User(user_id=user.user_id, email=user.email, name=user.name)


def _project(project: Project) -> pb.Project:
    return pb.Project(project_id=project.project_id, name=project.name)


def _session_tokens(tokens: SessionTokens) -> pb.TokenSet:
    return pb.TokenSet(
        access_token=tokens.access.text,
        access_expires_at=_time(tokens.access.expires_at_us),
        refresh_token=tokens.refresh_token,
        refresh_expires_at=_time(tokens.refresh_expires_at_us),
    )


def _api_key(key: ApiKey) -> pb.ApiKey:
    return pb.ApiKey(
        key_id=key.key_id,
        name=key.name,
        prefix=key.prefix,
        permissions=_permissions(key.permissions),
        create_time=_time(key.created_at_us),
        expires_at=_time(key.expires_at_us),
        revoked_at=_time(key.revoked_at_us),
    )


def _time(at_us: int) -> Timestamp | None:
    """Absent where the domain says 0, never."""
    return Timestamp(seconds=at_us // _US_PER_S, nanos=at_us % _US_PER_S * 1000) if at_us else None


def _permissions(names: Iterable[str]) -> list[Permission.ValueType]:
    return sorted(Permission.Value(f"PERMISSION_{name}") for name in names)


def _permission_name(permission: Permission.ValueType) -> str:
    return Permission.Name(permission).removeprefix("PERMISSION_")
