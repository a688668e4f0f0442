"""Scorers that have to ask others: on the event loop, with the caller's credential, after those of the workers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from services.metrics.declarations import Absent, Scorer, Value
from services.metrics.engine import Engine, Outcome
from services.metrics.registry import Plan, ScorerSpec
from services.metrics.scoring import DECIMALS, Detail, SampleScores, SampleTexts, freeze_spec, plan_of
from services.runtime.errors import DomainError, InvalidField

_ABSENT_CODES: Final = frozenset({"PERMISSION_DENIED", "FAILED_PRECONDITION", "NOT_FOUND"})
"""Refusals that make scores absent. What is away or busy is worth another request; what is wrong with it is told."""


@dataclass(frozen=True, slots=True)
class Origin:
    """On whose behalf answers are scored, and where they come from."""

    token: str = ""
    run_id: str = ""
    """The run that pays for calls of models; empty where none may be called."""
    sample_ids: tuple[str, ...] = ()
    calls_at_once_max: int = 0
    """Calls under way; 0 leaves it to the scorer's own limit."""
    traceparents: tuple[str, ...] = ()
    """The trace context of each sample, empty for one that is not recorded; none at all where no sample is."""


class OutsideScores(NamedTuple):
    """One value for each declared score of the scorer, and what they came with."""

    values: tuple[Value, ...]
    detail: Detail | None = None


class Asked(NamedTuple):
    """A sample, its id and its trace context."""

    sample_id: str
    texts: SampleTexts
    traceparent: str = ""


class OutsideScorer(Protocol):
    """Asks others for scores."""

    async def score(
        self, origin: Origin, label: str, parameters: Any, samples: Sequence[Asked]
    ) -> Sequence[OutsideScores]:
        """The scores of each sample, in order. `label` tells two uses of one scorer apart.

        Raises:
            InvalidField: the request is not one for this scorer.
            DomainError: no sample could be scored.
        """
        ...


class Scoring:
    """Scores samples, inside by `engine` and outside by the scorers of these names."""

    def __init__(
        self,
        engine: Engine,
        outside: Mapping[str, OutsideScorer],
        choices: Mapping[str, Mapping[str, Sequence[str]]],
    ) -> None:
        """`choices` are the values that parameters of some scorers take here, by scorer and parameter."""
        self._engine = engine
        self._outside = outside
        self.choices = choices

    def plan(self, specs: Sequence[ScorerSpec]) -> Plan:
        """The plan of `specs`. Raises InvalidField, as make_plan, and for a value that is none of the choices."""
        plan = plan_of(tuple(map(freeze_spec, specs)))
        for index, (scorer, parameters) in enumerate(plan.steps):
            for name, choices in self.choices.get(scorer.name, {}).items():
                if getattr(parameters, name) not in choices:
                    none = "has no values: LLMLAB_METRICS_REMOTE_SCORERS names none"
                    message = f"must be one of {', '.join(choices)}" if choices else none
                    path = f"scorers[{index}].parameters.{name}"
                    raise InvalidField(path, message, reason="SCORER_PARAMETERS")
        return plan

    async def score(
        self, specs: Sequence[ScorerSpec], samples: Sequence[SampleTexts], origin: Origin
    ) -> tuple[Plan, list[Outcome]]:
        """As Engine.score; `origin.sample_ids` may be empty where no scorer calls a model.

        Raises:
            InvalidField: also for a scorer that calls a model, where no run would bear its bill.
            DomainError: what an outside scorer raises.
        """
        plan = self.plan(specs)
        if not any(scorer.outside for scorer, _ in plan.steps):
            return await self._engine.score(specs, samples)
        _check_payer(plan, origin)
        inside = [spec for spec, (scorer, _) in zip(specs, plan.steps, strict=True) if not scorer.outside]
        outcomes = await self._inside(inside, samples)
        ids = origin.sample_ids or ("",) * len(samples)
        traceparents = origin.traceparents or ("",) * len(samples)
        accepted = [index for index, outcome in enumerate(outcomes) if _is_scored(outcome)]
        asked = [Asked(ids[index], samples[index], traceparents[index]) for index in accepted]
        found: list[Sequence[OutsideScores]] = []
        for spec, (scorer, parameters) in zip(specs, plan.steps, strict=True):
            if scorer.outside and asked:
                found.append(await self._ask(scorer, spec.label or scorer.name, parameters, asked, origin))
        for place, index in enumerate(accepted):
            inner = outcomes[index]
            if isinstance(inner, SampleScores):
                outcomes[index] = _merged(plan, inner, [scores[place] for scores in found])
        return plan, outcomes

    async def _inside(self, specs: Sequence[ScorerSpec], samples: Sequence[SampleTexts]) -> list[Outcome]:
        if specs:
            return (await self._engine.score(specs, samples))[1]
        # No scorers at all would mean the default set.
        return [self._engine.refusal(sample) or SampleScores((), ()) for sample in samples]

    async def _ask(
        self, scorer: Scorer, label: str, parameters: Any, asked: Sequence[Asked], origin: Origin
    ) -> Sequence[OutsideScores]:
        try:
            return await self._outside[scorer.name].score(origin, label, parameters, asked)
        except DomainError as error:
            if error.code not in _ABSENT_CODES:
                raise
            absent = Absent(f"{error.reason}: {error.message}")
            return [OutsideScores((absent,) * len(scorer.scores))] * len(asked)


def _check_payer(plan: Plan, origin: Origin) -> None:
    """Refuses to call models for answers that no run has: what is sent again would be paid for again."""
    paid = next((scorer.name for scorer, _ in plan.steps if scorer.needs_model), "")
    if not paid:
        return
    if not origin.run_id:
        raise InvalidField("run", f"the scorer {paid!r} calls a model, which a run pays for: ask ScoreRunBatch")
    ids = origin.sample_ids
    if len(set(ids)) < len(ids) or not all(each.isascii() and each.isdecimal() for each in ids):
        raise InvalidField("samples", f"the scorer {paid!r} needs distinct sample ids, each the index of a run's cell")


def _is_scored(outcome: Outcome) -> bool:
    return isinstance(outcome, SampleScores)


def _merged(plan: Plan, inner: SampleScores, found: Sequence[OutsideScores]) -> SampleScores:
    """The scores of all steps in the plan's order."""
    reasons = dict(inner.absent)
    insides = iter(enumerate(inner.values))
    outsides = iter(found)
    values: list[float | None] = []
    absent: list[tuple[int, str]] = []
    details: list[tuple[int, Detail]] = []
    for scorer, _ in plan.steps:
        if scorer.outside:
            scores = next(outsides)
            if scores.detail is not None:
                details.append((len(values), scores.detail))
            taken = (_plain(value) for value in scores.values)
        else:
            taken = ((value, reasons.get(index, "")) for index, value in _some(insides, len(scorer.scores)))
        for value, reason in taken:
            if value is None:
                absent.append((len(values), reason))
            values.append(value)
    return SampleScores(tuple(values), tuple(absent), details=tuple(details))


def _some(values: Iterator[tuple[int, float | None]], count: int) -> Iterator[tuple[int, float | None]]:
    return (next(values) for _ in range(count))


def _plain(value: Value) -> tuple[float | None, str]:
    if isinstance(value, Absent):
        return None, value.reason
    if math.isfinite(value):
        return round(value, DECIMALS), ""
    return None, "the value is not a finite number"
