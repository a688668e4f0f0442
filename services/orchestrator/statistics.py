"""The stored form of a run's statistics, and arithmetic with them."""

from __future__ import annotations

import json

from services.orchestrator.calls import Money, Usage
from services.orchestrator.records import Statistics


def encode_statistics(statistics: Statistics) -> str:
    """Statistics as JSON text; fields are a list, so that an event stays narrow."""
    counts = [
        statistics.cells_total,
        statistics.done,
        statistics.failed,
        statistics.unknown,
        statistics.cancelled,
        statistics.scored,
        statistics.attempts_failed,
        statistics.latency_sum_us,
    ]
    return json.dumps([counts, statistics.usage, statistics.cost], separators=(",", ":"))


def decode_statistics(text: str) -> Statistics:
    """The inverse of `encode_statistics`."""
    counts, usage, cost = json.loads(text)
    total, done, failed, unknown, cancelled, scored, attempts_failed, latency_sum_us = counts
    return Statistics(
        cells_total=total,
        done=done,
        failed=failed,
        unknown=unknown,
        cancelled=cancelled,
        scored=scored,
        attempts_failed=attempts_failed,
        usage=Usage(*usage),
        cost=Money(*cost),
        latency_sum_us=latency_sum_us,
    )
