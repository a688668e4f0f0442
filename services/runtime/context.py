"""The RPC that is being served, as a context variable: who calls, under which request id, until when."""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from services.runtime.errors import INTERRUPTED_KEY, Unauthenticated
from services.runtime.ids import new_id

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from services.runtime.auth import Principal
    from services.runtime.errors import DomainError
    from services.runtime.methods import Method
    from services.runtime.spans import Span


class Call:
    """One incoming RPC and what the interceptors found out about it."""

    __slots__ = (
        "_request_id",
        "admitted",
        "context",
        "deadline_s",
        "ending",
        "endless",
        "error",
        "expiry",
        "metadata",
        "method",
        "principal",
        "span",
        "started_s",
        "task",
    )

    def __init__(self, method: Method, context: Any, task: asyncio.Task[Any] | None, *, endless: bool = False) -> None:
        self.method = method
        self.context = context
        self.task = task
        self.endless = endless
        self.metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
        self.started_s = monotonic()
        remaining_s = context.time_remaining()
        self.deadline_s: float | None = None if remaining_s is None else self.started_s + remaining_s
        self._request_id = ""
        self.principal: Principal | None = None
        self.admitted = False
        self.ending: DomainError | None = None
        """Why the server ends this call early; set before its task is cancelled."""
        self.error: BaseException | None = None
        """How it ended; None while it runs and after success."""
        self.expiry: asyncio.TimerHandle | None = None
        self.span: Span | None = None
        """What is recorded of it; None where nothing is."""

    @property
    def request_id(self) -> str:
        """The caller's request id, or one that is made when somebody asks for it first."""
        if not self._request_id:
            self._request_id = new_id("req")
        return self._request_id

    @request_id.setter
    def request_id(self, request_id: str) -> None:
        self._request_id = request_id

    def end(self, error: DomainError) -> None:
        """End the call from outside with `error`: its handler is cancelled, its caller gets the error."""
        if self.task is not None and self.ending is None:
            # The same reasons refuse a call at its beginning; the caller of a paid one has to tell them apart.
            error.metadata[INTERRUPTED_KEY] = "true"
            self.ending = error
            self.task.cancel()


HandlerT = TypeVar("HandlerT", bound="Callable[..., Any]")

_CALL: ContextVar[Call | None] = ContextVar("llmlab_call", default=None)


def bind_call(call: Call) -> None:
    """Make `call` the one that this task, and the tasks that it starts, work for."""
    _CALL.set(call)


def current_call() -> Call | None:
    """The RPC that this task works for; None outside one."""
    return _CALL.get()


def current_request_id() -> str:
    """Request id of the RPC that this task works for; empty outside one."""
    call = _CALL.get()
    return "" if call is None else call.request_id


def current_principal() -> Principal:
    """Who makes the RPC that this task works for. Raises Unauthenticated outside an authenticated RPC."""
    call = _CALL.get()
    if call is None or call.principal is None:
        raise Unauthenticated("CREDENTIAL_MISSING", "this needs a caller, and there is none: it has no credential")
    return call.principal


def bearer_token() -> str:
    """The caller's own access token, to be forwarded to a peer on the caller's behalf; empty where there is none."""
    call = _CALL.get()
    return "" if call is None else bearer_token_of(call)


def bearer_token_of(call: Call) -> str:
    """The token in `authorization: Bearer <token>`; empty where there is none."""
    scheme, _, token = str(call.metadata.get("authorization", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def endless(handler: HandlerT) -> HandlerT:
    """Mark the handler of a server stream that has no end of its own, because it watches something.

    A stopping server ends it at once with SHUTTING_DOWN, so it must be resumable; it ends when its credential expires.
    """
    handler.__endless__ = True  # type: ignore[attr-defined]
    return handler


def remaining_s() -> float | None:
    """Seconds until the deadline of the RPC that this task works for (may be negative); None without one."""
    call = _CALL.get()
    return None if call is None or call.deadline_s is None else call.deadline_s - monotonic()
