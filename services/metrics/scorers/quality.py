"""One figure for how good an answer is: a weighted mean of what the other scorers say."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

from pydantic import Field

from services.metrics.declarations import Absent, Direction, Parameters, Scorer, Subject, Value, unit
from services.metrics.scorers.coherence import coherence
from services.metrics.scorers.completeness import completeness
from services.metrics.scorers.finished import finished
from services.metrics.scorers.lexical_diversity import answer_mtld
from services.metrics.scorers.matching import token_f1
from services.metrics.scorers.ngrams import distinct_quadruples
from services.metrics.scorers.readability import flesch_reading_ease, prose_counts
from services.metrics.scorers.refusal import refuses
from services.metrics.scorers.relevance import relevance
from services.metrics.scorers.structure import well_formed

# Where a component's normalised score reaches 1: an answer to the point shares about half of its direction with the
# prompt, plain English reads at 60, and MTLD of careful prose lies around 80.
_RELEVANCE_FULL = 0.5
_READING_EASE_FULL = 60.0
_MTLD_FULL = 80.0
# With less than this share of the weight there is no quality to speak of.
_COVERAGE_MIN = 0.5

TOO_LITTLE_KNOWN = Absent("components with less than half of the weight are defined for this answer")
NO_WEIGHTS = Absent("every weight is 0")


def _weight(default: float, description: str) -> float:
    weight: float = Field(default=default, ge=0.0, le=1_000.0, allow_inf_nan=False, description=description)
    return weight


class QualityParameters(Parameters):
    """The weights of the components, relative to each other; 0 leaves a component out."""

    correctness: float = _weight(1.0, "Weight of token F1 with the best reference; counts only where there is one.")
    relevance: float = _weight(0.35, "Weight of min(1, relevance / 0.5).")
    completeness: float = _weight(0.25, "Weight of completeness.")
    answered: float = _weight(0.2, "Weight of 1 - refusal.")
    repetition: float = _weight(0.2, "Weight of 1 - rep-4.")
    finished: float = _weight(0.15, "Weight of having come to its own end (1 or 0).")
    coherence: float = _weight(0.1, "Weight of coherence.")
    readability: float = _weight(0.15, "Weight of Flesch reading ease / 60, held between 0 and 1.")
    lexical_diversity: float = _weight(0.1, "Weight of min(1, MTLD / 80).")
    structure: float = _weight(0.05, "Weight of structure.well_formed.")

    @cached_property
    def weights(self) -> dict[str, float]:
        """The weights of answers that have a reference, by component."""
        return {name: getattr(self, name) for name in COMPONENTS}

    @cached_property
    def weights_without_reference(self) -> dict[str, float]:
        """The weights of other answers, of whose correctness nothing is known."""
        return {name: weight for name, weight in self.weights.items() if name != "correctness"}


def _capped(value: Value, full: float) -> Value:
    return value if isinstance(value, Absent) else min(1.0, max(0.0, value / full))


def _relevance(subject: Subject) -> Value:
    return _capped(subject.once(relevance), _RELEVANCE_FULL)


def _answered(subject: Subject) -> Value:
    return 1.0 - subject.once(refuses) if subject.answer.words else Absent("the answer has no words")


def _repetition(subject: Subject) -> Value:
    distinct = subject.once(distinct_quadruples)
    return Absent("the answer has fewer than four words") if distinct is None else distinct


def _readability(subject: Subject) -> Value:
    counts = subject.once(prose_counts)
    return counts if isinstance(counts, Absent) else _capped(flesch_reading_ease(counts), _READING_EASE_FULL)


def _lexical_diversity(subject: Subject) -> Value:
    return _capped(subject.once(answer_mtld), _MTLD_FULL)


COMPONENTS: dict[str, Callable[[Subject], Value]] = {
    "correctness": lambda subject: subject.once(token_f1),
    "relevance": _relevance,
    "completeness": lambda subject: subject.once(completeness),
    "answered": _answered,
    "repetition": _repetition,
    "finished": finished,
    "coherence": lambda subject: subject.once(coherence),
    "readability": _readability,
    "lexical_diversity": _lexical_diversity,
    "structure": well_formed,
}
"""By the name of its weight: a component's score, from 0 (worst) to 1 (best)."""


def _quality(subject: Subject, parameters: QualityParameters) -> Sequence[Value]:
    weights = parameters.weights if subject.references else parameters.weights_without_reference
    total = math.fsum(weights.values())
    if not total:
        return (NO_WEIGHTS, NO_WEIGHTS)
    values = {name: COMPONENTS[name](subject) for name, weight in weights.items() if weight}
    terms = [(weights[name], value) for name, value in values.items() if not isinstance(value, Absent)]
    present = math.fsum(weight for weight, _ in terms)
    coverage = present / total
    if coverage < _COVERAGE_MIN:
        return (TOO_LITTLE_KNOWN, coverage)
    return (math.fsum(weight * value for weight, value in terms) / present, coverage)


QUALITY = Scorer(
    name="quality",
    version="3",
    description="One figure for how good the answer is: the weighted mean of normalised scores that are defined.",
    citation="Our own definition; weights and normalisation are the parameters' descriptions.",
    scores=(
        unit(
            "Weighted mean of the components that are defined; absent where those carry less than half of the weight."
        ),
        unit(
            "The share of the weight whose components are defined. Without a reference correctness has no weight.",
            "coverage",
            Direction.NEUTRAL,
        ),
    ),
    function=_quality,
    parameters=QualityParameters,
    in_default_set=True,
)
