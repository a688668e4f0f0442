"""Where a name may begin and end: the rules beyond "not in the middle of a word".

A sign between two words can bind them into another name ("you.com", "AT&T", "T-Mobile", "info@stripe.com",
"stripe_key", "can't") or not ("Stripe.", "Stripe & PayPal", "Stripe-like", "Stripe's"). All text here is folded.
"""

from collections.abc import Callable, Mapping
from typing import Final

from services.metrics.brands.characters import is_hangul, is_word, joins
from services.metrics.brands.paths import SIGNS, Paths

FREE: Final = frozenset(' \n\t\r,;:!?()[]{}<>|*"~`^')
"""Signs that never bind: where a name stands between two of them, nothing else has to be looked at."""

_LIST_NUMBER_DIGITS_MAX: Final = 3
_CURRENCIES: Final = frozenset("$\u20ac\u00a3\u00a5\u20b9")
_ENDINGS_OF_CONTRACTIONS = frozenset({"s", "t", "d", "m", "re", "ve", "ll"})

# Korean particles, which are written onto the noun.
_PARTICLES = frozenset(
    """
    은 는 이 가 을 를 의 에 에서 에게 께 한테 와 과 랑 이랑 로 으로 도 만 까지 부터 마저 조차 보다 처럼 같이 이나
    나 라 이라 란 이란 든지 요 은요 는요 에는 에도 에서는 에서도 에게는 로는 으로는 와는 과는 만은 만의 로서 으로서
    로써 으로써 들 들은 들이 들의 들을 입니다 이다 이고 이며 이라고 라고 인 이었 였
    """.split()
)
_PARTICLE_LENGTH_MAX = max(map(len, _PARTICLES))


def word_ends(text: str, end: int) -> bool:
    """Whether a word that takes the character before `end` is over there. A Korean particle may follow it."""
    if end >= len(text) or not joins(text[end - 1], text[end]):
        return True
    if not is_hangul(text[end]) or not is_hangul(text[end - 1]):
        return False
    stop = end
    while stop < len(text) and stop - end <= _PARTICLE_LENGTH_MAX and is_hangul(text[stop]):
        stop += 1
    return text[end:stop] in _PARTICLES


def may_begin(text: str, start: int, end: int, paths: Paths) -> bool:
    """Whether a name that takes `start` to `end` may begin at `start`; that a word begins there is known."""
    if start == 0 or text[start - 1] in FREE:
        return True
    sign = text[start - 1]
    if is_word(sign):
        return is_word(text[start])  # not ".NET" in "ASP.NET"
    if sign in SIGNS and paths.hold(start):
        return False
    if sign in _CURRENCIES and text[start].isdecimal():
        return False  # not "3M" in "$3M"
    rule = _BEGINNINGS.get(sign)
    # Without a word before it, the sign binds nothing.
    return rule is None or start == 1 or not is_word(text[start - 2]) or rule(text, start, end)


def may_end(text: str, start: int, end: int) -> bool:
    """Whether a name that takes `start` to `end` may end at `end`; that a word ends there is known."""
    if end >= len(text) or text[end] in FREE:
        return True
    if text[end] in "+#":
        return not _is_letter(text, start, end)
    rule = _ENDINGS.get(text[end])
    return rule is None or end + 1 == len(text) or not is_word(text[end + 1]) or rule(text, start, end)


def _begins_after_point(text: str, start: int, _end: int) -> bool:
    return not joins(text[start - 2], text[start]) or _numbers_an_item(text, start - 1)


def _begins_after_apostrophe(text: str, start: int, end: int) -> bool:
    return text[start:end] not in _ENDINGS_OF_CONTRACTIONS and _last_word(text, start - 1) != "o"


def _begins_after_ampersand(text: str, start: int, end: int) -> bool:
    return not _is_letter(text, start, end) and len(_last_word(text, start - 1)) > 1


def _begins_after_hyphen(text: str, start: int, end: int) -> bool:
    return not joins(text[start - 2], text[start]) or _begins_after_ampersand(text, start, end)


def _ends_before_point(text: str, _start: int, end: int) -> bool:
    return not joins(text[end - 1], text[end + 1])


def _ends_before_apostrophe(text: str, start: int, end: int) -> bool:
    letter = text[end + 1] if _is_letter(text, end + 1, end + 2) and _alone(text, end + 1) else ""
    return letter == "s" or (letter != "t" and not _is_letter(text, start, end))


def _ends_before_ampersand(text: str, start: int, end: int) -> bool:
    return not _alone(text, end + 1) and not _is_letter(text, start, end)


def _ends_before_hyphen(text: str, start: int, end: int) -> bool:
    return not _is_letter(text, start, end)


def _never(_text: str, _start: int, _end: int) -> bool:
    return False


_Rule = Callable[[str, int, int], bool]
_BEGINNINGS: Final[Mapping[str, _Rule]] = {
    ".": _begins_after_point,
    "'": _begins_after_apostrophe,
    "&": _begins_after_ampersand,
    "-": _begins_after_hyphen,
    "@": _never,
    "_": _never,
}
"""By the sign between a word and the name after it."""
_ENDINGS: Final[Mapping[str, _Rule]] = {
    ".": _ends_before_point,
    "'": _ends_before_apostrophe,
    "&": _ends_before_ampersand,
    "-": _ends_before_hyphen,
    "@": _never,
    "_": _never,
}
"""By the sign between the name and a word after it."""


def _alone(text: str, position: int) -> bool:
    """Whether no further letter or digit follows the one at `position`."""
    return position + 1 >= len(text) or not is_word(text[position + 1])


def _is_letter(text: str, start: int, end: int) -> bool:
    return end - start == 1 and is_word(text[start])


def _last_word(text: str, end: int) -> str:
    """The word that ends at `end`, or its last three characters."""
    start = end
    while start > 0 and end - start < _LIST_NUMBER_DIGITS_MAX and is_word(text[start - 1]):
        start -= 1
    return text[start:end]


def _numbers_an_item(text: str, point: int) -> bool:
    """Whether the point belongs to a number that stands alone, as in "1.Stripe 2.PayPal"."""
    start = point
    while start > 0 and point - start < _LIST_NUMBER_DIGITS_MAX and text[start - 1].isdecimal():
        start -= 1
    return start < point and (start == 0 or not (is_word(text[start - 1]) or text[start - 1] in ".,-"))
