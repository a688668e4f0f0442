"""Who calls, and may they: each RPC needs the permission that its contract declares. Undeclared means refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from services.runtime.auth import LOCAL_PRINCIPAL, Principal, TokenVerifier, expired, missing
from services.runtime.context import Call, bearer_token_of
from services.runtime.errors import PermissionDenied
from services.runtime.interceptors.stage import Stage
from services.runtime.methods import AUTHENTICATED, PUBLIC, Method


class AuthStage(Stage):
    """Sets `call.principal`. `verifier=None` switches authentication off: everybody is LOCAL_PRINCIPAL."""

    def __init__(self, verifier: TokenVerifier | None, *, stream_grace_s: float) -> None:
        self._verifier = verifier
        self._stream_grace_s = stream_grace_s

    def enter(self, call: Call) -> Awaitable[None] | None:
        """Verify the bearer token and compare its permissions with what the method needs."""
        permission = call.method.permission
        if permission is None:
            raise PermissionDenied(
                "PERMISSION_DENIED", f"{call.method.name} declares no permission: nobody may call it"
            )
        if self._verifier is None:
            call.principal = LOCAL_PRINCIPAL
            return None
        if permission == PUBLIC:
            return None
        token = bearer_token_of(call)
        if not token:
            raise missing()
        principal = self._verifier.cached(token)
        if principal is None:
            return self._verify(call, self._verifier, token)
        self._authorize(call, principal)
        return None

    def leave(self, call: Call) -> None:
        """Forget the stream's expiry."""
        if call.expiry is not None:
            call.expiry.cancel()
            call.expiry = None

    async def _verify(self, call: Call, verifier: TokenVerifier, token: str) -> None:
        self._authorize(call, await verifier.verify(token))

    def _authorize(self, call: Call, principal: Principal) -> None:
        permission = call.method.permission
        if permission != AUTHENTICATED and permission not in principal.permissions:
            raise denied(call.method, principal)
        call.principal = principal
        if call.method.streams_responses:
            self._end_at_expiry(call, principal)

    def _end_at_expiry(self, call: Call, principal: Principal) -> None:
        """A stream may not outlive its credential for long. A finite one gets a grace: what it pays for is not cut."""
        grace_s = 0.0 if call.endless else self._stream_grace_s
        left_s = principal.expires_at - time.time() + grace_s
        if left_s < float("inf"):
            call.expiry = asyncio.get_running_loop().call_later(max(0.0, left_s), call.end, expired())


def denied(method: Method, principal: Principal) -> PermissionDenied:
    """The refusal of a good credential that lacks the permission of `method`."""
    carried = ", ".join(sorted(principal.permissions)) or "none"
    return PermissionDenied(
        "PERMISSION_DENIED",
        f"{method.name} needs the permission {method.permission}; this credential carries {carried}. "
        "Use a credential that has it, or ask who manages the project for one.",
        metadata={"permission": method.permission or ""},
    )
