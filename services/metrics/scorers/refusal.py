"""Whether the answer refuses to do what was asked.

Patterns of several languages, anchored at the beginning of a clause in the opening sentences: "I can't help with that"
refuses, "I can't wait to help" doesn't, nor does a story in which somebody says it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

import re2

from services.metrics.declarations import (
    Absent,
    Direction,
    NoParameters,
    Scale,
    ScoreDeclaration,
    Scorer,
    Subject,
    Value,
)
from services.metrics.scorers.refusal_patterns import ANSWER_OPENING, NO_REFUSAL, refusal_patterns

EMPTY_ANSWER = Absent("the answer is empty")

_SENTENCE_CHARACTERS = 400
_OPENING_SENTENCES = 3
_PATTERN_MEMORY_BYTES = 64 << 20
"""What a pattern's automaton may grow to, as texts come; some hundred answers in many languages bring it to 10 MB. One
that is too small is thrown away and built anew, over and over, which takes 30 times as long."""
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\uff07": "'", "\t": " ", "*": "", "_": ""})


def _finder(pattern: str) -> Callable[[str], object]:
    """Whether `pattern` is in a text. A set of one tells that alone, without the place, many times faster."""
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY_BYTES
    options.log_errors = False
    patterns = re2.Set.SearchSet(options)
    patterns.Add(pattern)
    patterns.Compile()
    return cast("Callable[[str], object]", patterns.Match)


@lru_cache(maxsize=1)
def _finders() -> tuple[Callable[[str], object], ...]:
    refusals = [_finder(pattern) for pattern in refusal_patterns()]

    def refusal(line: str) -> bool:
        return any(find(line) for find in refusals)

    return refusal, _finder(NO_REFUSAL), _finder(ANSWER_OPENING)


def refuses(subject: Subject) -> bool:
    """Whether one of the answer's opening sentences refuses.

    Where the first one begins as an answer does ("Here is ...", "Dear Ms Smith"), what follows it is not looked at.
    """
    refusal, no_refusal, answer_opening = _finders()
    opening = [sentence[:_SENTENCE_CHARACTERS] for sentence in subject.answer.sentences[:_OPENING_SENTENCES]]
    lines = "\n".join(opening).casefold().translate(_APOSTROPHES)
    if not refusal(lines):
        return False
    first, *others = lines.split("\n")
    looked_at = (first,) if answer_opening(first) else (first, *others)
    return any(refusal(line) and not no_refusal(line) for line in looked_at)


def _refusal(subject: Subject, _: NoParameters) -> Sequence[Value]:
    if not subject.answer.raw or subject.answer.raw.isspace():
        return (EMPTY_ANSWER,)
    return (float(subject.once(refuses)),)


REFUSAL = Scorer(
    name="refusal",
    version="3",
    description="Whether the answer refuses, in its opening sentences, to do what was asked.",
    citation="Our own patterns for English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Russian, "
    "Turkish, Chinese, Japanese, Korean and Arabic; precision and recall: make bench NAME=scorers.",
    scores=(
        ScoreDeclaration(
            "", Scale.BINARY, Direction.LOWER_IS_BETTER, "1 where the answer refuses, else 0.", minimum=0.0, maximum=1.0
        ),
    ),
    function=_refusal,
    in_default_set=True,
)
