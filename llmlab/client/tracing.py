"""The client's spans in a program that uses OpenTelemetry. In one that does not, nothing happens or is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from llmlab.client.errors import LlmlabError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Metadata = tuple[tuple[str, str], ...]

_SPACE = "llmlab.client"


@contextmanager
def rpc_span(request: Message) -> Iterator[Metadata]:
    """A span of the RPC that takes this request, below the program's current one.

    Yields the metadata that carries the trace to the service; none where the program records nothing and belongs to no
    trace.
    """
    # A program that traces has loaded it: to import it here would make every other one pay.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        yield ()
        return
    method = _rpcs(request.DESCRIPTOR.file.name).get(request.DESCRIPTOR.full_name, request.DESCRIPTOR.full_name)
    span: Span = trace.get_tracer(_SPACE).start_span(
        method, kind=trace.SpanKind.CLIENT, attributes={"rpc.system.name": "grpc", "rpc.method": method}
    )
    context = span.get_span_context()
    try:
        yield (
            (("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"),)
            if context.is_valid
            else ()
        )
    except BaseException as error:
        code = error.code if isinstance(error, LlmlabError) else type(error).__name__
        span.set_attributes({"rpc.response.status_code": code, "error.type": code})
        span.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        span.end()


@cache
def _rpcs(file: str) -> dict[str, str]:
    """Of a file of the contracts: each RPC, as service/method, by the name of its request."""
    from google.protobuf import descriptor_pool

    services = descriptor_pool.Default().FindFileByName(file).services_by_name.values()
    return {
        method.input_type.full_name: f"{service.full_name}/{method.name}"
        for service in services
        for method in service.methods
    }
