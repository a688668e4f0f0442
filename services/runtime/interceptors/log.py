"""One log record per RPC: at DEBUG when it succeeds, INFO when it is refused, WARNING when the server is to blame."""

from __future__ import annotations

import logging
from time import monotonic

from services.runtime.context import Call
from services.runtime.interceptors.outcome import outcome_of
from services.runtime.interceptors.stage import Stage

_log = logging.getLogger("llmlab.rpc")

_SERVER_FAULTS = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "UNIMPLEMENTED"})


class LogStage(Stage):
    """Logs how a call ended. Never logs a message or metadata: those hold prompts and credentials."""

    def leave(self, call: Call) -> None:
        """Write the record, where its level is wanted."""
        level = logging.DEBUG
        code, reason = outcome_of(call)
        if code in _SERVER_FAULTS:
            level = logging.WARNING
        elif code not in ("OK", "CANCELLED"):
            level = logging.INFO
        if not _log.isEnabledFor(level):
            return
        fields = {"method": call.method.name, "code": code, "ms": round((monotonic() - call.started_s) * 1_000, 2)}
        if call.principal is not None:
            fields["project_id"] = call.principal.project_id
        if call.error is not None:
            fields |= {"reason": reason, "error": str(call.error)}
        _log.log(level, "rpc", extra={"fields": fields})
