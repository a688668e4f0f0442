"""What the report says of single results beside the summary: distributions of times, and kinds of failures.

It is gathered in one pass over the results without their bodies: eight bytes a time, whatever the answers' size.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmlab.api.common.v1 import error_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.plain import enum_name


def _times() -> array[int]:
    return array("q")


@dataclass(slots=True)
class ModelTimes:
    """Times of a model's answers, microseconds."""

    latency_us: array[int] = field(default_factory=_times)
    ttft_us: array[int] = field(default_factory=_times)


@dataclass(slots=True)
class FailureKind:
    """Cells that ended without an answer in one way."""

    state: str
    reason: str
    message: str
    """Of the first one."""
    cells: dict[str, int] = field(default_factory=dict)
    """By model."""


@dataclass(slots=True)
class RunFigures:
    """Times by model, in the order in which models appear, and failures by state and reason."""

    times: dict[str, ModelTimes] = field(default_factory=dict)
    failures: dict[tuple[str, str], FailureKind] = field(default_factory=dict)
    results: int = 0

    def add(self, result: run_pb2.Result) -> None:
        """Counts a result."""
        self.results += 1
        if result.status == run_pb2.CELL_STATUS_DONE:
            times = self.times.setdefault(result.model, ModelTimes())
            times.latency_us.append(result.timing.latency_us)
            if result.timing.streamed and result.timing.HasField("ttft_output_us"):
                times.ttft_us.append(result.timing.ttft_output_us)
            return
        state = enum_name(run_pb2.CellStatus.DESCRIPTOR, result.status).lower()
        reason = enum_name(error_pb2.ErrorReason.DESCRIPTOR, result.error.reason)
        kind = self.failures.setdefault((state, reason), FailureKind(state, reason, result.error.message))
        kind.cells[result.model] = kind.cells.get(result.model, 0) + 1


def quantile(ordered: Sequence[int], share: float) -> int:
    """The smallest of the ordered values, of which there is at least one, that so many of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
