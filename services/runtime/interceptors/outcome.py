"""How a call ended, in the two words that logs and metrics use."""

from __future__ import annotations

import asyncio

from services.runtime.context import Call
from services.runtime.errors import DomainError


def outcome_of(call: Call) -> tuple[str, str]:
    """Canonical code name and reason; ("OK", "") for success."""
    error = call.error
    if error is None:
        return "OK", ""
    if isinstance(error, DomainError):
        return error.code, error.reason
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED", "CANCELLED"
    # The handler ended the RPC by itself through gRPC's context (its health service does).
    code = call.context.code()
    return getattr(code, "name", "UNKNOWN"), ""
