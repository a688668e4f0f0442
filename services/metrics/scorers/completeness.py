"""Whether the answer does everything countable that the prompt asks for."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import regex

from services.metrics.asks import Asks, Format, Length, Unit, find_asks
from services.metrics.declarations import Absent, NoParameters, Scorer, Subject, Value, unit
from services.metrics.json_text import JsonTooLarge, only_code_block, parse_json
from services.metrics.scorers.finished import finished
from services.metrics.scorers.refusal import refuses
from services.metrics.scorers.relevance import answer_terms
from services.metrics.scorers.structure import read_structure
from services.metrics.term_weights import total_weight
from services.metrics.text import Text

NO_PROMPT = Absent("the sample has no prompt")
NOTHING_COUNTABLE = Absent("the prompt asks for nothing that can be counted")

# A question counts as answered where the answer takes up this share of its weight.
_QUESTION_SHARE = 1 / 3
_ORDINALS = frozenset(
    "first firstly second secondly third thirdly fourth fifth sixth seventh eighth ninth tenth finally lastly".split()
)
_SERIES_BREAK = regex.compile(r",\s*(?:and|or)?\s+|\s+(?:and|or)\s+")
_CODE_LINE = regex.compile(
    r"(?m)^[ \t]*+(?:def |class |import |from |function |const |let |SELECT |#include|public |return )"
)
# Commas are counted in sentences up to this length; a longer one lists nothing that a reader could count.
_SERIES_CHARACTERS = 2_000


def _most_in_series(sentences: Sequence[str]) -> int:
    """The most items that one of the sentences parts by commas, "and" or "or"."""
    most = 0
    for sentence in sentences:
        # No more breaks than this can be in it, which is told much faster than how many there are.
        if sentence.count(",") + sentence.count("and") + sentence.count("or") < most:
            continue
        if len(sentence) <= _SERIES_CHARACTERS:
            most = max(most, len(_SERIES_BREAK.split(sentence)))
    return most


def _items_listed(subject: Subject) -> int:
    """The most items that the answer can be said to list: of a list, of ordinals, of paragraphs, or within commas."""
    answer = subject.answer
    listed = subject.once(read_structure).list_items
    ordinals = len(_ORDINALS.intersection(answer.word_counts))
    return max(listed, ordinals, _most_in_series(answer.sentences), answer.paragraphs)


def _has_length(answer: Text, length: Length) -> bool:
    counted = {
        Unit.WORDS: lambda: len(answer.words),
        Unit.SENTENCES: lambda: len(answer.sentences),
        Unit.PARAGRAPHS: lambda: answer.paragraphs,
        Unit.CHARACTERS: lambda: len(answer.raw.strip()),
    }[length.unit]()
    return length.minimum <= counted <= length.maximum


def _is_json(text: str) -> bool:
    block = only_code_block(text)
    try:
        return parse_json(text if block is None else block) is not None
    except JsonTooLarge:
        return False


def _has_format(subject: Subject, wanted: Format) -> bool:
    if wanted is Format.JSON:
        return _is_json(subject.answer.raw)
    structure = subject.once(read_structure)
    if wanted is Format.TABLE:
        return structure.table_rows > 2
    if wanted is Format.CODE:
        return structure.code_blocks > 0 or _CODE_LINE.search(subject.answer.raw) is not None
    return structure.list_items > 1


def _takes_up(terms: AbstractSet[str], answer: AbstractSet[str]) -> bool:
    return total_weight(terms & answer) >= _QUESTION_SHARE * total_weight(terms)


def _met(subject: Subject, asks: Asks) -> int:
    """How many of the asks the answer meets."""
    terms = subject.once(answer_terms).keys()
    met = sum(_has_length(subject.answer, length) for length in asks.lengths)
    met += sum(_has_format(subject, wanted) for wanted in asks.formats)
    met += sum(_takes_up(part, terms) for part in asks.parts)
    met += sum(_takes_up(question, terms) for question in asks.questions)
    if asks.items:
        # Several lists share the items that are there.
        left = _items_listed(subject)
        for count in asks.items:
            met += left >= count
            left -= count
    return met


def completeness(subject: Subject) -> Value:
    """The share of the prompt's asks that the answer meets; being cut off counts as one more that it does not."""
    if not subject.prompt.raw:
        return NO_PROMPT
    asks = find_asks(subject.prompt.raw)
    if not len(asks):
        return NOTHING_COUNTABLE
    met = 0 if not subject.answer.words or subject.once(refuses) else _met(subject, asks)
    return met / (len(asks) + (finished(subject) == 0.0))


def _completeness(subject: Subject, _: NoParameters) -> Sequence[Value]:
    return (subject.once(completeness),)


COMPLETENESS = Scorer(
    name="completeness",
    version="2",
    description="Whether the answer does everything countable that an English prompt asks for, and is not cut off.",
    citation="Our own definition, after the verifiable instructions of IFEval (J. Zhou et al. 2023): "
    "services/metrics/asks.py.",
    scores=(
        unit(
            "The share of asks that are met: items listed, lengths kept, formats, named parts, questions taken up. An "
            "answer that was cut off misses one more; a refusal misses all. Absent where nothing countable is asked."
        ),
    ),
    function=_completeness,
    needs_prompt=True,
    in_default_set=True,
)
