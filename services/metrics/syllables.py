"""Syllables of English words, by rule.

The rule is that of Lingua::EN::Syllable (Greg Fast): count groups of vowels after dropping a final e, then correct for
endings and vowel pairs where that is known to be wrong; silent "-ed" and "-es" are corrected here as well. It is right
for about nine words in ten, which moves a readability score of a paragraph by a point or two.
"""

import re
from collections.abc import Iterable

_VOWEL_GROUP = re.compile(r"[aeiouy]+")
_NOT_A_LETTER = re.compile(r"[^a-z]+")

# Each match takes one syllable away.
_SUBTRACT = re.compile(
    r"cial|tia|cius|cious|giu|ion|iou|sia$|.ely$"
    r"|[^aeiouytdl]ed$|[aeiouyl]led$"  # "asked", "called"; but "wanted", "settled"
    r"|(?<![aeiouyscxzgl])(?<!ch)(?<!sh)es$|[aeiouyl]les$"  # "makes", "miles"; but "boxes", "dishes", "tables"
)
# Each match adds one.
_ADD = re.compile(
    r"ia|riet|dien|iu|io|ii|(?!eau)[aeiou]{3}|^mc|ism$|[^l]lien|^coa[dglx].|[^gq]ua[^auieo]|dnt$"
    r"|[^ct]ien[ct]"  # "experience"; but "patient"
    r"|[^aeiouylrw]l$"  # "simple", "table", "little"
)

# Longer tokens are no English words, and are neither kept nor looked at beyond this.
_WORD_LENGTH_MAX = 64
_MEMORY_LIMIT = 65_536


def _count(word: str) -> int:
    letters = _NOT_A_LETTER.sub("", word[:_WORD_LENGTH_MAX])
    stem = letters.removesuffix("e")
    count = len(_VOWEL_GROUP.findall(stem))
    count += len(_ADD.findall(stem)) - len(_SUBTRACT.findall(stem))
    return max(1, count)


class _Memory(dict[str, int]):
    """Counts of words seen before, up to a limit."""

    def __missing__(self, word: str) -> int:
        count = _count(word)
        if len(word) <= _WORD_LENGTH_MAX and len(self) < _MEMORY_LIMIT:
            self[word] = count
        return count


_SYLLABLES = _Memory()


def count_syllables(words: Iterable[str]) -> list[int]:
    """The syllables of each word, given in lower case; at least 1, also for numbers and words without a vowel."""
    return list(map(_SYLLABLES.__getitem__, words))
