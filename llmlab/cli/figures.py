"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.metrics.v1 import statistics_pb2


def milliseconds(microseconds: float) -> str:
    """Formats a duration given in microseconds: 0.4 ms, 38 ms, 2.1 s."""
    if microseconds >= 1_000_000:
        return f"{microseconds / 1_000_000:.1f} s"
    if microseconds >= 10_000:
        return f"{microseconds / 1000:.0f} ms"
    return f"{microseconds / 1000:.1f} ms"


def duration(seconds: float) -> str:
    """Formats a longer duration: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def value(figure: statistics_pb2.Estimate) -> str:
    """Formats a figure; "-" where it is withheld."""
    return f"{figure.value:.2f}" if figure.HasField("value") else "-"


def percent(figure: statistics_pb2.Estimate) -> str:
    """Formats a rate: "75 %"; "-" where it was not measured."""
    return f"{figure.value * 100:.0f} %" if figure.HasField("value") else "-"


def interval(figure: statistics_pb2.Estimate) -> str:
    """Formats the interval of a figure: "0.66-0.75"; nothing where there is none."""
    if not (figure.HasField("low") and figure.HasField("high")):
        return ""
    return f"{figure.low:.2f}-{figure.high:.2f}"


def if_missing(figure: statistics_pb2.Estimate) -> str:
    """Formats a figure's range with everything missing at its worst and best: "0.40-0.90"; nothing without any."""
    if not (figure.HasField("low_if_missing") and figure.HasField("high_if_missing")):
        return ""
    return f"{figure.low_if_missing:.2f}-{figure.high_if_missing:.2f}"


def quantile(figures: Iterable[statistics_pb2.Estimate], wanted: float) -> str:
    """Formats one quantile of microseconds; "-" where it is withheld or was not measured."""
    for figure in figures:
        if abs(figure.quantile - wanted) < 1e-9 and figure.HasField("value"):
            return milliseconds(figure.value)
    return "-"


def tokens(usage: usage_pb2.TokenUsage) -> str:
    """Formats tokens as "input > output"."""
    return f"{usage.input_tokens:,} > {usage.output_tokens:,}"


def local_time(at: Timestamp, zone: str) -> str:
    """Formats a time by the clock of a zone: "2026-12-01 00:00 Europe/Berlin"; UTC where the zone is not known here."""
    try:
        local: datetime = at.ToDatetime(tzinfo=UTC).astimezone(ZoneInfo(zone))
    except ZoneInfoNotFoundError:
        local, zone = at.ToDatetime(tzinfo=UTC), "UTC"
    return f"{local:%Y-%m-%d %H:%M} {zone}"
