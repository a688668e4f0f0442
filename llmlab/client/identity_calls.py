"""Calls to the identity service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from llmlab.api.common.v1 import options_pb2
from llmlab.api.identity.v1 import identity_pb2
from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub


class IdentityCalls(Connection):
    """Accounts, sessions and API keys."""

    @property
    def _identity(self) -> IdentityServiceAsyncStub:
        return IdentityServiceStub(self._channel("identity"))

    async def sign_up(
        self, email: str, password: str, name: str, *, project_name: str = ""
    ) -> identity_pb2.SignUpResponse:
        """Creates an account with a first project."""
        request = identity_pb2.SignUpRequest(email=email, password=password, name=name, project_name=project_name)
        return await self._unary("identity", self._identity.SignUp, request)

    async def log_in(self, email: str, password: str, *, project_id: str = "") -> identity_pb2.LogInResponse:
        """Exchanges e-mail address and password for tokens."""
        request = identity_pb2.LogInRequest(email=email, password=password, project_id=project_id)
        return await self._unary("identity", self._identity.LogIn, request)

    async def refresh_token(self, refresh_token: str) -> identity_pb2.TokenSet:
        """Exchanges a refresh token, which works once, for new tokens."""
        request = identity_pb2.RefreshTokenRequest(refresh_token=refresh_token)
        return (await self._unary("identity", self._identity.RefreshToken, request)).tokens

    async def log_out(self, refresh_token: str) -> None:
        """Ends the session of a refresh token."""
        await self._unary("identity", self._identity.LogOut, identity_pb2.LogOutRequest(refresh_token=refresh_token))

    async def who_am_i(self) -> identity_pb2.WhoAmIResponse:
        """Says who the credential belongs to and what it may do."""
        return await self._unary("identity", self._identity.WhoAmI, identity_pb2.WhoAmIRequest())

    async def create_api_key(
        self, name: str, *, permissions: Iterable[options_pb2.Permission.ValueType] = (), expires_in_s: int = 0
    ) -> identity_pb2.CreateApiKeyResponse:
        """Creates an API key; its secret is in this answer and never shown again."""
        request = identity_pb2.CreateApiKeyRequest(name=name, permissions=permissions, expires_in_s=expires_in_s)
        return await self._unary("identity", self._identity.CreateApiKey, request)

    async def list_api_keys(self) -> AsyncIterator[identity_pb2.ApiKey]:
        """Yields the project's API keys, oldest first, without secrets."""
        async for page in self._pages("identity", self._identity.ListApiKeys, identity_pb2.ListApiKeysRequest()):
            for key in page.keys:
                yield key

    async def revoke_api_key(self, key_id: str) -> None:
        """Revokes an API key."""
        await self._unary("identity", self._identity.RevokeApiKey, identity_pb2.RevokeApiKeyRequest(key_id=key_id))
