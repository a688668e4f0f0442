"""What handlers raise, turned into what may leave the process."""

from __future__ import annotations

import logging

import grpc

from services.runtime.context import Call
from services.runtime.errors import DomainError, Internal, InvalidRequest
from services.runtime.interceptors.stage import Stage
from services.runtime.status import error_from_rpc

_log = logging.getLogger(__name__)

# A peer that answers one of these found a fault in this server's own call, not in its caller's.
_OUR_FAULT = frozenset({"UNAUTHENTICATED", "UNIMPLEMENTED", "UNKNOWN", "DATA_LOSS"})


# psycopg of a text that PostgreSQL cannot keep. Known by its words: services without a database load no driver.
_NUL_REFUSED = "cannot contain NUL (0x00) bytes"


class ErrorStage(Stage):
    """DomainError stays; a peer's refusal is passed on; all else becomes INTERNAL with the request id to report."""

    def failed(self, call: Call, error: Exception) -> Exception:
        """The DomainError that may leave the process in place of `error`."""
        if isinstance(error, DomainError):
            return error
        if isinstance(error, grpc.RpcError):
            refused = error_from_rpc(error)
            if refused.code not in _OUR_FAULT:
                return refused
        if _NUL_REFUSED in str(error):
            return InvalidRequest("INVALID_FIELD", "a text of the request has a NUL character in it; take it out")
        _log.error("unexpected error in %s", call.method.name, exc_info=error)
        return Internal("INTERNAL", f"the server failed; report this with the request id {call.request_id}")
