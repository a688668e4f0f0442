"""What happens around every RPC, and in which order. `standard_stages` is the one place that says it.

Outermost first: the request id comes first, so that every log line and error has it, and then the trace; log and
metrics see every call, also the refused ones; a server that is full refuses before it spends time on signatures; who
may not call learns nothing about the request's rules; errors are mapped closest to the handler, so that all others see
typed errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.runtime.auth import TokenVerifier
from services.runtime.interceptors.auth import AuthStage
from services.runtime.interceptors.errors import ErrorStage
from services.runtime.interceptors.log import LogStage
from services.runtime.interceptors.metrics import MetricsStage
from services.runtime.interceptors.overload import OverloadStage
from services.runtime.interceptors.request_id import RequestIdStage
from services.runtime.interceptors.stage import Stage
from services.runtime.interceptors.trace import TraceStage
from services.runtime.interceptors.validation import ValidationStage
from services.runtime.settings import ServiceSettings

if TYPE_CHECKING:
    from services.runtime.spans import Tracer

__all__ = ["standard_stages"]


def standard_stages(
    settings: ServiceSettings,
    verifier: TokenVerifier | None,
    overload: OverloadStage,
    tracer: Tracer | None = None,
) -> list[Stage]:
    """The stages of every server, in order; that of traces only where there is a tracer."""
    return [
        RequestIdStage(),
        *([] if tracer is None else [TraceStage(tracer)]),
        LogStage(),
        MetricsStage(settings.service),
        overload,
        AuthStage(verifier, stream_grace_s=settings.auth_stream_grace_s),
        ValidationStage(off_loop_bytes=settings.validate_off_loop_bytes),
        ErrorStage(),
    ]
