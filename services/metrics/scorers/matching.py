"""Whether the answer is, or holds, what was expected."""

import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import re2
import regex
from pydantic import AfterValidator, Field, StringConstraints

from services.metrics.declarations import Absent, NoParameters, Parameters, Scorer, Subject, Value, binary, unit

NO_REFERENCE = Absent("the sample has no reference")
TOO_MUCH_WORK = Absent("the answer is too long for an expression of this size; shorten one of them")
NOTHING_TO_FIND = Absent("neither the parameter `texts` nor the sample's references say what to look for")

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = regex.compile(r"\b(?:a|an|the)\b")


def normalize_squad(text: str) -> str:
    """The SQuAD rule: lower case, no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalized_answer(subject: Subject) -> str:
    """The answer under the SQuAD rule."""
    return normalize_squad(subject.answer.raw)


class ExactMatchParameters(Parameters):
    """How exact is exact."""

    normalization: Literal["squad", "none"] = Field(
        default="squad",
        description='"squad" compares without case, ASCII punctuation, English articles and extra spaces; "none" '
        "compares character by character.",
    )


def _exact_match(subject: Subject, parameters: ExactMatchParameters) -> Sequence[Value]:
    if not subject.references:
        return (NO_REFERENCE,)
    if parameters.normalization == "none":
        return (float(subject.answer.raw in subject.references),)
    answer = subject.once(normalized_answer)
    return (float(any(answer == normalize_squad(reference) for reference in subject.references)),)


EXACT_MATCH = Scorer(
    name="exact_match",
    version="1",
    description="Whether the answer equals one of the references.",
    citation="P. Rajpurkar et al., SQuAD (2016), evaluation script 1.1.",
    scores=(binary("1 where the answer equals a reference."),),
    function=_exact_match,
    parameters=ExactMatchParameters,
    needs_reference=True,
)


def f1_of_tokens(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over two multisets of tokens; 1 where both are empty, 0 where one is."""
    if not answer or not reference:
        return float(answer == reference)
    shared = sum((Counter(answer) & Counter(reference)).values())
    return 2.0 * shared / (len(answer) + len(reference))


def token_f1(subject: Subject) -> Value:
    """The best token F1 over the references, under the SQuAD rule."""
    if not subject.references:
        return NO_REFERENCE
    answer = subject.once(normalized_answer).split()
    return max(f1_of_tokens(answer, normalize_squad(reference).split()) for reference in subject.references)


def _token_f1(subject: Subject, _: NoParameters) -> Sequence[Value]:
    return (subject.once(token_f1),)


TOKEN_F1 = Scorer(
    name="token_f1",
    version="1",
    description="How many words the answer shares with the best fitting reference.",
    citation="P. Rajpurkar et al., SQuAD (2016), evaluation script 1.1.",
    scores=(unit("F1 of the multisets of words, under the SQuAD rule."),),
    function=_token_f1,
    needs_reference=True,
)

Needle = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]


class ContainsParameters(Parameters):
    """What to look for."""

    texts: list[Needle] = Field(
        default=[], max_length=100, description="What to look for; empty means the sample's references."
    )
    mode: Literal["any", "all"] = Field(default="any", description='Whether "any" or "all" of them have to be there.')
    case_sensitive: bool = Field(default=False, description="Whether upper and lower case differ.")


def _contains(subject: Subject, parameters: ContainsParameters) -> Sequence[Value]:
    needles: Sequence[str] = parameters.texts or subject.references
    if not needles:
        return (NOTHING_TO_FIND,)
    answer = subject.answer.raw
    if not parameters.case_sensitive:
        answer = answer.casefold()
        needles = [needle.casefold() for needle in needles]
    found = (needle in answer for needle in needles)
    return (float(all(found) if parameters.mode == "all" else any(found)),)


CONTAINS = Scorer(
    name="contains",
    version="1",
    description="Whether the answer holds given texts.",
    citation="Substring of code points, case-folded unless told otherwise.",
    scores=(binary("1 where the texts are found."),),
    function=_contains,
    parameters=ContainsParameters,
)

_REGEX_MEMORY_BYTES = 1 << 20
# RE2 is linear in the text, but each character costs up to one step per instruction of the program where the
# automaton's states don't fit its memory: about 5 ns a step, so a second here.
_REGEX_STEPS_MAX = 200_000_000
_COMPILED_PATTERNS = 256


@lru_cache(maxsize=_COMPILED_PATTERNS)
def compile_pattern(pattern: str, *, case_sensitive: bool = True) -> Any:
    """Compiles `pattern` for RE2, which matches in time linear in the text whatever the pattern.

    Raises:
        ValueError: the pattern isn't RE2 syntax, or needs more memory than allowed.
    """
    options = re2.Options()
    options.case_sensitive = case_sensitive
    options.max_mem = _REGEX_MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        cause = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(
            f"{cause}; the syntax is RE2's, without look-around and back-references: "
            "https://github.com/google/re2/wiki/Syntax"
        ) from None


def _checked_pattern(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


class RegexParameters(Parameters):
    """The pattern."""

    pattern: Annotated[str, AfterValidator(_checked_pattern)] = Field(
        min_length=1, max_length=2_000, description="The regular expression, in RE2 syntax."
    )
    mode: Literal["search", "full"] = Field(
        default="search", description='Whether it has to match somewhere ("search") or the whole answer ("full").'
    )
    case_sensitive: bool = Field(default=True, description="Whether upper and lower case differ.")


def _regex(subject: Subject, parameters: RegexParameters) -> Sequence[Value]:
    compiled = compile_pattern(parameters.pattern, case_sensitive=parameters.case_sensitive)
    if compiled.programsize * len(subject.answer.raw) > _REGEX_STEPS_MAX:
        return (TOO_MUCH_WORK,)
    match = compiled.fullmatch if parameters.mode == "full" else compiled.search
    return (float(match(subject.answer.raw) is not None),)


REGEX = Scorer(
    name="regex",
    version="1",
    description="Whether the answer matches a regular expression.",
    citation="RE2, https://github.com/google/re2: linear in the text.",
    scores=(binary("1 where the expression matches."),),
    function=_regex,
    parameters=RegexParameters,
)
