"""The span of a command, where the environment says where spans go: the first of the trace of all that it causes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from llmlab.tracing import SpanTargets, TracingError

EXIT_USAGE = 2

_COMMAND = re.compile(r"[a-z-]{1,32}")


@contextmanager
def traced_command(arguments: Sequence[str], environ: Mapping[str, str]) -> Iterator[None]:
    """Work below a span named after the command, which is always recorded.

    Nothing happens where neither LLMLAB_TRACE_ENDPOINT nor LLMLAB_TRACE_FILE is set, and for `llmlab up`, which serves
    others. Ends the process where spans cannot go where they are to.
    """
    targets = SpanTargets.from_environment("llmlab-cli", environ)
    command = next((argument for argument in arguments if _COMMAND.fullmatch(argument)), "")
    if targets is None or command == "up":
        yield
        return
    try:
        with _span(targets, f"llmlab {command}".strip()):
            yield
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        _refuse(f"LLMLAB_TRACE_*: {error.name} is missing; install it with: pip install 'llmlab[tracing]'")
    except TracingError as error:
        _refuse(f"LLMLAB_TRACE_FILE: {error}")


def _refuse(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(EXIT_USAGE)


@contextmanager
def _span(targets: SpanTargets, name: str) -> Iterator[None]:
    from opentelemetry import trace

    from llmlab.tracing.provider import open_provider

    lost: list[int] = []
    with open_provider(targets, lost.append) as provider:
        # The client of this process finds it there, as it does in other programs.
        trace.set_tracer_provider(provider)
        tracer = provider.get_tracer("llmlab.cli")
        with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False):
            yield
    if lost:
        print(f"{sum(lost)} spans of the command's trace were lost on their way.", file=sys.stderr)
