"""Scorers, samples and scores: protobuf to domain and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from llmlab.api.common.v1.error_pb2 import CallError, ErrorClass, ErrorReason
from llmlab.api.common.v1.usage_pb2 import Cost
from llmlab.api.common.v1.value_pb2 import Value, ValueList
from llmlab.api.metrics.v1 import metrics_pb2 as pb
from services.metrics.declarations import Direction, Scale, ScoreDeclaration, Scorer
from services.metrics.registry import Plan, ScorerSpec
from services.metrics.rpc.judge import rubric_judgement
from services.metrics.scoring import SampleScores, SampleTexts
from services.runtime.errors import DomainError, InvalidField
from services.runtime.status import code_of

_SHOWN_CHARACTERS: Final = 1_000
"""Of each text of a judgement's evidence: it is kept with every answer of a run."""
_SCALES: Final = {
    Scale.BINARY: pb.SCALE_BINARY,
    Scale.UNIT: pb.SCALE_UNIT,
    Scale.COUNT: pb.SCALE_COUNT,
    Scale.REAL: pb.SCALE_REAL,
}
_DIRECTIONS: Final = {
    Direction.HIGHER_IS_BETTER: pb.DIRECTION_HIGHER_IS_BETTER,
    Direction.LOWER_IS_BETTER: pb.DIRECTION_LOWER_IS_BETTER,
    Direction.NEUTRAL: pb.DIRECTION_NEUTRAL,
}


def read_specs(specs: Iterable[pb.ScorerSpec]) -> list[ScorerSpec]:
    """The choice of scorers. Raises InvalidField for a parameter that no scorer can have."""
    return [
        ScorerSpec(
            name=spec.name,
            parameters={
                name: _plain(value, f"scorers[{index}].parameters.{name}") for name, value in spec.parameters.items()
            },
            label=spec.label,
        )
        for index, spec in enumerate(specs)
    ]


def _plain(value: Value, path: str) -> object:
    """The Python value inside a Value."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    if kind != "list_value":
        return getattr(value, kind)
    items = value.list_value.values
    if any(item.HasField("list_value") for item in items):
        raise InvalidField(path, "must not hold a list inside a list", reason="SCORER_PARAMETERS")
    return [_plain(item, path) for item in items]


def _value(plain: object) -> Value:
    """A scorer's default as a Value."""
    match plain:
        case bool():
            return Value(bool_value=plain)
        case int():
            return Value(int_value=plain)
        case float():
            return Value(double_value=plain)
        case str():
            return Value(string_value=plain)
        case list():
            return Value(list_value=ValueList(values=[_value(item) for item in plain]))
        case _:
            raise TypeError(f"no parameter has a default of type {type(plain).__name__}")


def read_sample(sample: pb.Sample) -> SampleTexts:
    """A sample as plain texts."""
    return (sample.answer, sample.prompt, tuple(sample.references), sample.finish_reason)


def template_of(plan: Plan) -> pb.SampleScores:
    """The scores of a plan without their values. Copying it is several times faster than building each anew."""
    return pb.SampleScores(
        scores=[
            pb.Score(
                name=column.name,
                scale=_SCALES[column.declaration.scale],
                direction=_DIRECTIONS[column.declaration.direction],
                signature=column.signature,
            )
            for column in plan.columns
        ]
    )


def fill(scored: pb.SampleScores, scores: SampleScores) -> None:
    """Puts the values of one sample into a copy of the template."""
    for score, value in zip(scored.scores, scores.values, strict=True):
        if value is not None:
            score.value = value
    for index, reason in scores.absent:
        scored.scores[index].absent_reason = reason
    for index, detail in scores.details:
        score = scored.scores[index]
        score.cost.CopyFrom(Cost(cost_nano_usd=detail.cost_nano_usd, unpriced_calls=detail.unpriced_calls))
        if detail.judgement is not None:
            score.judgement.CopyFrom(rubric_judgement(detail.judgement, _SHOWN_CHARACTERS))


def sample_scores(template: pb.SampleScores, sample_id: str, outcome: SampleScores | DomainError) -> pb.SampleScores:
    """The scores of one sample of several, or why it has none."""
    scored = pb.SampleScores(sample_id=sample_id)
    if isinstance(outcome, DomainError):
        scored.error.CopyFrom(call_error(outcome))
    else:
        scored.MergeFrom(template)
        fill(scored, outcome)
    return scored


def call_error(error: DomainError) -> CallError:
    """Why one sample of a batch has no scores."""
    code = code_of(error).value[0]
    ours = error.code == "INTERNAL"
    return CallError(
        reason=ErrorReason.Value(f"ERROR_REASON_{error.reason}"),
        error_class=ErrorClass.ERROR_CLASS_SERVER_ERROR if ours else ErrorClass.ERROR_CLASS_INVALID_REQUEST,
        message=error.message,
        grpc_code=code,
    )


def scorer_message(scorer: Scorer, choices: Mapping[str, Sequence[str]]) -> pb.Scorer:
    """A scorer as it declares itself, with the values that parameters take at this server."""
    return pb.Scorer(
        name=scorer.name,
        version=scorer.version,
        description=scorer.description,
        scores=[_declaration(scorer, declaration) for declaration in scorer.scores],
        parameters=_parameters(scorer, choices),
        needs_reference=scorer.needs_reference,
        needs_prompt=scorer.needs_prompt,
        in_default_set=scorer.in_default_set,
        citation=scorer.citation,
        needs_model=scorer.needs_model,
    )


def _declaration(scorer: Scorer, declaration: ScoreDeclaration) -> pb.ScoreDeclaration:
    return pb.ScoreDeclaration(
        name=scorer.score_name(declaration.part),
        scale=_SCALES[declaration.scale],
        direction=_DIRECTIONS[declaration.direction],
        description=declaration.description,
        minimum=declaration.minimum,
        maximum=declaration.maximum,
    )


def _parameters(scorer: Scorer, choices: Mapping[str, Sequence[str]]) -> list[pb.ScorerParameter]:
    return [
        pb.ScorerParameter(
            name=parameter.name,
            type=parameter.type,
            description=parameter.description,
            default_value=None if parameter.required else _value(parameter.default),
            choices=choices.get(parameter.name, parameter.choices),
        )
        for parameter in scorer.parameters.describe()
    ]
