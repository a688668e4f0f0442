"""Numbers to be summed up, and figures with their uncertainty, as the metrics service gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SeriesKind = Literal["mean", "rate", "quantiles"]


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers to be summed up; fields as in `llmlab.api.metrics.v1.Series`."""

    kind: SeriesKind
    values: list[float]
    clusters: list[int] | None = None
    missing: int = 0
    minimum: float | None = None
    maximum: float | None = None
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure that only adapters read: it goes to the client as it came."""

    encoded: bytes


@dataclass(frozen=True, slots=True)
class ComparedGroup:
    """One point's numbers by unit; fields as in `llmlab.api.metrics.v1.ComparedGroup`."""

    key: str
    values: list[float]
    units: list[int]
    missing_units: list[int]


@dataclass(frozen=True, slots=True)
class Question:
    """Groups to be compared with the best of them, or with that of the key `baseline`.

    Fields as in `llmlab.api.metrics.v1.CompareRequest`.
    """

    kind: SeriesKind
    groups: list[ComparedGroup]
    lower_is_better: bool
    minimum: float | None = None
    maximum: float | None = None
    baseline: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a group compares with another, which only adapters read: it goes to the client as it came."""

    first: str
    encoded: bytes
