"""How similar the answer's spelling is to a reference, by rapidfuzz."""

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from services.metrics.declarations import Absent, Parameters, Scorer, Subject, Value, unit
from services.metrics.scorers.matching import NO_REFERENCE, normalize_squad, normalized_answer

# rapidfuzz compares 64 characters with one at a time: about a second.
_CHARACTER_PAIRS_MAX = 40_000_000_000

TOO_LONG = Absent(
    f"characters of the answer times characters of the references exceed {_CHARACTER_PAIRS_MAX:,}; score a part of them"
)


class FuzzyMatchParameters(Parameters):
    """What is compared."""

    method: Literal["ratio", "token_sort", "token_set"] = Field(
        default="ratio",
        description='"ratio" compares the texts as they are, "token_sort" their words in alphabetical order, '
        '"token_set" their different words, where words on one side only count less.',
    )
    normalization: Literal["squad", "none"] = Field(
        default="squad",
        description='"squad" compares without case, ASCII punctuation, English articles and extra spaces; "none" '
        "compares the texts as they are.",
    )


def _similarity(method: str) -> Callable[[str, str], float]:
    from rapidfuzz import fuzz

    return {"ratio": fuzz.ratio, "token_sort": fuzz.token_sort_ratio, "token_set": fuzz.token_set_ratio}[method]


def _fuzzy_match(subject: Subject, parameters: FuzzyMatchParameters) -> Sequence[Value]:
    if not subject.references:
        return (NO_REFERENCE,)
    if len(subject.answer.raw) * sum(map(len, subject.references)) > _CHARACTER_PAIRS_MAX:
        return (TOO_LONG,)
    answer, references = subject.answer.raw, list(subject.references)
    if parameters.normalization == "squad":
        answer, references = subject.once(normalized_answer), list(map(normalize_squad, references))
    similarity = _similarity(parameters.method)
    return (max(similarity(answer, reference) for reference in references) / 100.0,)


FUZZY_MATCH = Scorer(
    name="fuzzy_match",
    version="1",
    description="How similar the answer is to the best fitting reference, letter by letter.",
    citation="rapidfuzz: 1 - (insertions + deletions) / (length of both), of texts or of their words.",
    scores=(unit("1 for equal texts, 0 for texts without a common letter."),),
    function=_fuzzy_match,
    parameters=FuzzyMatchParameters,
    needs_reference=True,
)
