"""The scorer `judge`: answers of a run judged by a rubric, paid for by the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.metrics.declarations import Absent, Value
from services.metrics.judge.calls import JudgeCalls, JudgeModel
from services.metrics.judge.rubric import Judged, Rubric, RubricJudgement, RubricVerdict, judge_by_rubric
from services.metrics.judge.run_calls import RunCalls
from services.metrics.outside import Asked, Origin, OutsideScores
from services.metrics.scorers.judge import JudgeParameters
from services.metrics.scoring import Detail

TEXT_CHARACTERS_MAX: Final = 100_000
"""Longest prompt, answer or reference that is shown to a judge."""
_CONFIDENCE: Final = 0.95
_SET_CHARACTERS: Final = 12


@dataclass(frozen=True, slots=True)
class JudgeLimits:
    """How much one request may do."""

    calls_at_once: int
    call_ids_max: int
    """Ids that one verdict may use up: it is paid for so often at the most."""


class JudgeScorer:
    """Implements outside.OutsideScorer."""

    def __init__(self, calls: JudgeCalls, limits: JudgeLimits) -> None:
        self._calls = calls
        self._limits = limits

    async def score(
        self, origin: Origin, label: str, parameters: JudgeParameters, samples: Sequence[Asked]
    ) -> list[OutsideScores]:
        """See OutsideScorer.score."""
        judged = {
            asked.sample_id: Judged(
                asked.sample_id, prompt, answer, references[0] if references else "", asked.traceparent
            )
            for asked in samples
            for answer, prompt, references, _ in (asked.texts,)
            if max(map(len, (answer, prompt, *references))) <= TEXT_CHARACTERS_MAX
        }
        rubric = Rubric(parameters.rubric, parameters.threshold, parameters.samples, _CONFIDENCE)
        judge = JudgeModel(
            parameters.model,
            tags={"feature": "judge"},
            max_output_tokens=parameters.max_output_tokens,
            run_id=origin.run_id,
        )
        answers = list(judged.values())
        ids = [f"{origin.run_id}/{answer.answer_id}/{_score_set(label, parameters)}" for answer in answers]
        calls = RunCalls(
            self._calls,
            lambda place, ordinal: f"{ids[place // rubric.samples]}/{place % rubric.samples + 1}.{ordinal}",
            at_once_max=min(self._limits.calls_at_once, origin.calls_at_once_max or self._limits.calls_at_once),
            ids_max=self._limits.call_ids_max,
        )
        verdicts = await judge_by_rubric(calls, origin.token, judge, rubric, answers)
        scores = {verdict.answer_id: _scores(verdict, rubric.threshold) for verdict in verdicts}
        return [scores.get(asked.sample_id, _TOO_LONG) for asked in samples]


def _score_set(label: str, parameters: JudgeParameters) -> str:
    """Tells the judges of one study apart, in characters that a call id may have."""
    asked = f"{label}\n{parameters.model_dump_json()}"
    return "judge-" + hashlib.sha256(asked.encode()).hexdigest()[:_SET_CHARACTERS]


_LONG: Final = Absent(f"prompt, answer or reference has more than {TEXT_CHARACTERS_MAX:,} characters")
_TOO_LONG: Final = OutsideScores((_LONG, _LONG))


def _scores(judged: RubricJudgement, threshold: float) -> OutsideScores:
    detail = Detail(
        sum(sample.reply.cost_nano_usd for sample in judged.evidence),
        sum(sample.reply.unpriced_calls for sample in judged.evidence),
        judged,
    )
    if judged.score.value is None:
        missing = Absent(next(sample.missing_reason for sample in judged.evidence))
        return OutsideScores((missing, missing), detail)
    return OutsideScores((judged.score.value, _passed(judged, threshold)), detail)


def _passed(judged: RubricJudgement, threshold: float) -> Value:
    if judged.verdict is not RubricVerdict.UNDECIDED:
        return float(judged.verdict is RubricVerdict.PASS)
    interval = judged.score.interval
    if interval.low is None or interval.high is None:
        return Absent("undecided: too few verdicts are well formed for an interval")
    return Absent(f"undecided: {interval.low:.2f} - {interval.high:.2f}, or what is missing, holds {threshold:g}")
