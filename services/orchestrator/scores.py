"""Scores of answers as this service keeps them: what a scorer declares, and what it gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from services.orchestrator.calls import NO_MONEY, Money

Scale = Literal["binary", "unit", "count", "real"]
Direction = Literal["higher", "lower", "neutral"]


@dataclass(frozen=True, slots=True)
class ScorerDeclaration:
    """A scorer as the metrics service declares it."""

    name: str
    needs_reference: bool
    parameters: frozenset[str]
    required_parameters: frozenset[str]
    needs_model: bool = False
    """Whether it calls a model; its parameter "model", where it has one, names it."""


class Scored(NamedTuple):
    """The scores of one answer, encoded, which only adapters read; and by which of them results are put in order."""

    packed: bytes
    merit: float | None = None
    """`quality` where it was asked for, else the first score with a better side; lower is worse. None: it is absent."""


@dataclass(frozen=True, slots=True)
class Score:
    """One score of one answer; `value` is None where it is undefined, and then `absent_reason` says why."""

    name: str
    value: float | None
    scale: Scale
    direction: Direction
    absent_reason: str = ""
    cost: Money = NO_MONEY
    """What model calls for it cost."""
    verdict: str = ""
    """What a judge says: "pass", "fail", "undecided" or "missing"; empty for other scores."""
    low: float | None = None
    """The lower end of the 95 % interval of a judge's score."""
    high: float | None = None
    reasons: tuple[str, ...] = ()
    """What a judge gave as its reasons, each time that it was asked and answered."""
