"""What single code points are: how they fold for comparison, and which of them stand together in one word.

Classes of characters come from the tables of the `regex` package, whose version is pinned. Folding needs the running
Python's own Unicode data, so code points younger than the oldest supported data (Unicode 14, Python 3.11) stay as they
are: the same text folds to the same everywhere.
"""

import unicodedata

import regex

_KEPT_MAX = 0x20000
"""Classes of this many code points are kept: text that walks through all of Unicode must not fill the memory."""

# Assigned after Unicode 14 with a decomposition or a combining class.
_YOUNGER = r"[\U0001E030-\U0001E08F\U00010EFD-\U00010EFF\U0001E4EC-\U0001E4EF]"
# Trade mark signs and footnote numbers are no part of the name that they follow; NFKC would make letters of them.
_KEPT = regex.compile(rf"[\u2120\u2122\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]|{_YOUNGER}")
# Soft hyphens, joiners, marks of direction, variation selectors; and the Arabic tatweel, which only stretches.
_INVISIBLE = regex.compile(r"[\p{Cf}\u034f\u0640\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_SPACE = regex.compile(r"\s")
_LIKE_ASCII = {
    **dict.fromkeys("\x85\u2028\u2029", "\n"),
    **dict.fromkeys("\u2018\u2019\u02bc\u02b9\u2032\u00b4\uff07", "'"),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
    **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\uff02", '"'),
    # The capital of the Turkish dotted i; its full folding would leave a combining dot behind.
    "\u0130": "i",
    # Half of a character, which no text in UTF-8 holds.
    **dict.fromkeys(map(chr, range(0xD800, 0xE000)), "\ufffd"),
}
# Second characters of canonical compositions (NFKC_QC=Maybe): they may melt into what stands before them.
_COMPOSING = regex.compile(
    r"[\u0300-\u0304\u0306-\u030c\u030f\u0311\u0313\u0314\u031b\u0323-\u0328\u032d\u032e\u0330\u0331\u0338\u0342\u0345"
    r"\u0653-\u0655\u093c\u09be\u09d7\u0b3e\u0b56\u0b57\u0bbe\u0bd7\u0c56\u0cc2\u0cd5\u0cd6\u0d3e\u0d57\u0dca\u0dcf"
    r"\u0ddf\u102e\u1161-\u1175\u11a8-\u11c2\u1b35\u3099\u309a\uff9e\uff9f\U000110ba\U00011127\U0001133e\U00011357"
    r"\U000114b0\U000114ba\U000114bd\U000115af\U00011930]"
)

_NONE, _NUMBER, _MARK, _OTHER_SCRIPT = 0, 1, 2, 3
_FIRST_SCRIPT = 4
_UNSPACED, _UNSPACED_MARK = 100, 101
_SCRIPTS = (
    "Latin Greek Cyrillic Armenian Georgian Hebrew Arabic Syriac Ethiopic Hangul Katakana Devanagari Bengali Gurmukhi "
    "Gujarati Oriya Tamil Telugu Kannada Malayalam Sinhala"
).split()
_SCRIPT = regex.compile("|".join(rf"(\p{{Script={name}}})" for name in _SCRIPTS))
_UNSPACED_SCRIPT = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}\p{Balinese}]"
)
_MARK_SIGN = regex.compile(r"[\p{Mn}\p{Mc}]")
_LETTER = regex.compile(r"\p{L}")
_DIGIT = regex.compile(r"[\p{Nd}\p{Nl}]")
# The sign of a long vowel is shared with Hiragana, where hardly anyone writes it.
_LIKE_KATAKANA = {"\u30fc": "\u30a2"}

_classes: dict[str, int] = {}


def is_composing(character: str) -> bool:
    """Whether the character may melt into the one before it."""
    return _COMPOSING.match(character) is not None


def any_kept(text: str) -> bool:
    """Whether one of the characters stays as it is, whatever Unicode says that it folds to."""
    return _KEPT.search(text) is not None


def fold_character(character: str) -> str:
    """One character by NFKC and case folding; several characters, or none for what can't be seen."""
    if character.isascii():
        return character.lower()
    if _KEPT.match(character):
        return character
    if (known := _LIKE_ASCII.get(character)) is not None:
        return known
    if _SPACE.match(character):
        return " "
    if _INVISIBLE.match(character):
        return ""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", character).casefold())


def _classify(character: str) -> int:
    mark = _MARK_SIGN.match(character) is not None
    if _UNSPACED_SCRIPT.match(character):
        return _UNSPACED_MARK if mark else _UNSPACED if _LETTER.match(character) else _NONE
    if mark:
        return _MARK
    if _DIGIT.match(character):
        return _NUMBER
    if not _LETTER.match(character):
        return _NONE
    script = _SCRIPT.match(_LIKE_KATAKANA.get(character, character))
    return _OTHER_SCRIPT if script is None or script.lastindex is None else _FIRST_SCRIPT + script.lastindex - 1


def character_class(character: str) -> int:
    """0 for what is no part of a word; equal numbers for letters of one script."""
    found = _classes.get(character)
    if found is None:
        found = _classify(character)
        if len(_classes) < _KEPT_MAX:
            _classes[character] = found
    return found


def is_word(character: str) -> bool:
    """Whether the character can be part of a word: a letter, a digit or a mark on one."""
    return character_class(character) != _NONE


def is_hangul(character: str) -> bool:
    """Whether the character is a Korean letter."""
    return character_class(character) == _HANGUL


def joins(left: str, right: str) -> bool:
    """Whether two neighbours belong to one word.

    Letters of one script do, and digits with letters. Letters of different scripts don't, so a Latin name stands for
    itself in Chinese or Thai text. In scripts that put no space between words, every letter is a word of its own.
    """
    before, after = character_class(left), character_class(right)
    if not before or not after:
        return False
    if after in (_MARK, _UNSPACED_MARK):
        return True
    if before >= _UNSPACED or after >= _UNSPACED:
        return False
    return before in (_NUMBER, _MARK) or after in (_NUMBER, before)


_HANGUL = _FIRST_SCRIPT + _SCRIPTS.index("Hangul")
