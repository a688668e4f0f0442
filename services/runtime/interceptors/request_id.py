"""Every RPC has a request id: the caller's, or a new one. It is in each log line and in each error."""

from __future__ import annotations

import re
from collections.abc import Awaitable

from services.runtime.context import Call
from services.runtime.interceptors.stage import Stage

REQUEST_ID_HEADER = "x-request-id"
# A foreign id ends up in logs: nothing that could forge a line, nothing long.
_ACCEPTABLE = re.compile(r"[A-Za-z0-9_.:/-]{1,128}\Z")


class RequestIdStage(Stage):
    """Takes `x-request-id` from the caller. Without one the call makes an id when it first needs it."""

    def enter(self, call: Call) -> Awaitable[None] | None:
        """Set `call.request_id` where the caller sent one that may stand in a log."""
        sent = call.metadata.get(REQUEST_ID_HEADER)
        if isinstance(sent, str) and _ACCEPTABLE.match(sent):
            call.request_id = sent
        return None
