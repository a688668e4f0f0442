"""The scorers by name, and the plan that a request's choice of scorers makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from services.metrics.declarations import Parameters, ScoreDeclaration, Scorer
from services.metrics.scorers.coherence import COHERENCE
from services.metrics.scorers.completeness import COMPLETENESS
from services.metrics.scorers.embedding import COHERENCE_EMBEDDING, EMBEDDING_SIMILARITY, RELEVANCE_EMBEDDING
from services.metrics.scorers.expression import EXPRESSION
from services.metrics.scorers.finished import FINISHED
from services.metrics.scorers.fuzzy_match import FUZZY_MATCH
from services.metrics.scorers.json_schema import JSON_SCHEMA
from services.metrics.scorers.judge import JUDGE
from services.metrics.scorers.length import LENGTH
from services.metrics.scorers.lexical_diversity import LEXICAL_DIVERSITY
from services.metrics.scorers.matching import CONTAINS, EXACT_MATCH, REGEX, TOKEN_F1
from services.metrics.scorers.numeric import NUMERIC
from services.metrics.scorers.quality import QUALITY
from services.metrics.scorers.readability import READABILITY
from services.metrics.scorers.refusal import REFUSAL
from services.metrics.scorers.relevance import RELEVANCE
from services.metrics.scorers.remote import REMOTE
from services.metrics.scorers.repetition import REPETITION
from services.metrics.scorers.rouge import ROUGE, ROUGE_STEMMED
from services.metrics.scorers.structure import STRUCTURE
from services.metrics.scorers.translation import BLEU, CHRF, TER
from services.runtime.errors import InvalidField

SCORERS: Mapping[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        BLEU,
        CHRF,
        COHERENCE,
        COHERENCE_EMBEDDING,
        COMPLETENESS,
        CONTAINS,
        EMBEDDING_SIMILARITY,
        EXACT_MATCH,
        EXPRESSION,
        FINISHED,
        FUZZY_MATCH,
        JSON_SCHEMA,
        JUDGE,
        LENGTH,
        LEXICAL_DIVERSITY,
        NUMERIC,
        QUALITY,
        READABILITY,
        REFUSAL,
        REGEX,
        RELEVANCE,
        RELEVANCE_EMBEDDING,
        REMOTE,
        REPETITION,
        ROUGE,
        ROUGE_STEMMED,
        STRUCTURE,
        TER,
        TOKEN_F1,
    )
}
"""Every scorer, sorted by name."""


@dataclass(frozen=True, slots=True)
class ScorerSpec:
    """Which scorer to apply, and how."""

    name: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    label: str = ""


DEFAULT_SPECS: tuple[ScorerSpec, ...] = tuple(
    ScorerSpec(scorer.name) for scorer in SCORERS.values() if scorer.in_default_set
)
"""The default reference-free set."""


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """One score of a plan: its full name and what it is."""

    name: str
    declaration: ScoreDeclaration
    signature: str = ""
    """What a published number has to be accompanied by; empty where the name says it all."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Scorers with their validated parameters, in the order asked for, and the scores that they give."""

    steps: tuple[tuple[Scorer, Parameters], ...]
    columns: tuple[ScoreColumn, ...]


def _find_scorer(spec: ScorerSpec, path: str) -> Scorer:
    scorer = SCORERS.get(spec.name)
    if scorer is None:
        names = ", ".join(SCORERS)
        message = f"no scorer is named {spec.name!r}; the scorers are {names}"
        raise InvalidField(f"{path}.name", message, reason="SCORER_NOT_FOUND", code="NOT_FOUND")
    return scorer


def _validate_parameters(scorer: Scorer, spec: ScorerSpec, path: str) -> Parameters:
    try:
        return scorer.parameters.model_validate(dict(spec.parameters))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field_path = ".".join([f"{path}.parameters", *(str(step) for step in first["loc"])])
        known = ", ".join(scorer.parameters.names()) or "none"
        message = f"{first['msg']}; the parameters of {scorer.name!r} are: {known}"
        raise InvalidField(field_path, message, reason="SCORER_PARAMETERS") from None


def make_plan(specs: Sequence[ScorerSpec]) -> Plan:
    """Checks `specs` and resolves them; none mean the default set.

    Raises:
        InvalidField: a scorer is unknown (SCORER_NOT_FOUND), a parameter wrong (SCORER_PARAMETERS), or two scorers
            would give scores of the same name.
    """
    steps: list[tuple[Scorer, Parameters]] = []
    columns: list[ScoreColumn] = []
    names: set[str] = set()
    for index, spec in enumerate(specs or DEFAULT_SPECS):
        path = f"scorers[{index}]"
        scorer = _find_scorer(spec, path)
        parameters = _validate_parameters(scorer, spec, path)
        steps.append((scorer, parameters))
        signature = scorer.signature(parameters) if scorer.signature else ""
        for declaration in scorer.scores:
            name = scorer.score_name(declaration.part, spec.label)
            if name in names:
                raise InvalidField(f"{path}.label", f"two scorers would give a score named {name!r}; give one a label")
            names.add(name)
            columns.append(ScoreColumn(name, declaration, signature))
    return Plan(tuple(steps), tuple(columns))
