"""Applying a plan to samples. What crosses into a worker process and back is plain tuples of texts and numbers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from services.metrics.declarations import Absent, Subject
from services.metrics.registry import Plan, ScorerSpec, make_plan
from services.runtime.stopping import check_stopped

if TYPE_CHECKING:
    from services.metrics.judge.rubric import RubricJudgement

logger = logging.getLogger(__name__)

_PLANS_KEPT = 128
DECIMALS = 9
"""Values are rounded here, so that the last bits of a platform's mathematics can't show."""

FrozenSpec: TypeAlias = tuple[str, str, str]
"""Name, parameters as JSON and label of a scorer. JSON tells true from 1, where Python's equality doesn't."""
SampleTexts: TypeAlias = tuple[str, str, tuple[str, ...], str]
"""Answer, prompt, references and finish reason of a sample."""


@dataclass(frozen=True, slots=True)
class Detail:
    """What a score that was asked for outside came with."""

    cost_nano_usd: int = 0
    unpriced_calls: int = 0
    judgement: RubricJudgement | None = None


@dataclass(frozen=True, slots=True)
class SampleScores:
    """The scores of one sample, in the order of the plan's columns."""

    values: tuple[float | None, ...]
    """None where the score is absent. Empty where scoring failed."""
    absent: tuple[tuple[int, str], ...]
    """Column and reason of each absent score."""
    failed: bool = False
    """True where a scorer broke on this sample, which is a fault of ours."""
    details: tuple[tuple[int, Detail], ...] = ()
    """Column and details of each score that came with some."""


def freeze_spec(spec: ScorerSpec) -> FrozenSpec:
    """`spec` as a tuple that can be hashed and sent to another process."""
    return (spec.name, json.dumps(dict(spec.parameters), sort_keys=True), spec.label)


@lru_cache(maxsize=_PLANS_KEPT)
def plan_of(specs: tuple[FrozenSpec, ...]) -> Plan:
    """The plan of `specs`; kept, because a run asks for the same one again and again.

    Raises:
        InvalidField: as `make_plan`.
    """
    return make_plan([ScorerSpec(name, json.loads(parameters), label) for name, parameters, label in specs])


def score_subject(plan: Plan, subject: Subject) -> SampleScores:
    """All scores of one subject. Each is finite or absent with a reason."""
    values: list[float | None] = []
    absent: list[tuple[int, str]] = []
    for scorer, parameters in plan.steps:
        check_stopped()
        for value in scorer.function(subject, parameters):
            if isinstance(value, Absent):
                absent.append((len(values), value.reason))
                values.append(None)
            elif value.is_integer():
                values.append(value)
            elif math.isfinite(value):
                values.append(round(value, DECIMALS))
            else:
                absent.append((len(values), "the value is not a finite number"))
                values.append(None)
    return SampleScores(tuple(values), tuple(absent))


def score_samples(specs: tuple[FrozenSpec, ...], samples: Sequence[SampleTexts]) -> list[SampleScores]:
    """Scores each sample by itself; runs in a worker process. One that breaks a scorer fails alone."""
    plan = plan_of(specs)
    results: list[SampleScores] = []
    for answer, prompt, references, finish_reason in samples:
        subject = Subject(answer, prompt=prompt, references=references, finish_reason=finish_reason)
        try:
            results.append(score_subject(plan, subject))
        except Exception:
            logger.exception("a scorer broke on an answer of %d characters", len(answer))
            results.append(SampleScores((), (), failed=True))
    return results
