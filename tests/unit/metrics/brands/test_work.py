"""How much work a text makes: in proportion to its length, whatever it holds, and not beyond the time it is wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from services.metrics.brands.answers import Depth, detect_answers
from services.metrics.brands.brand_set import Brand
from services.metrics.brands.detection import detector_of
from services.metrics.brands.folding import fold
from services.runtime.stopping import Stopped, run_stoppable

BRANDS = (
    Brand("Acme", ("a", "AT&T", "a.b", "Acme Cloud", "a " * 23 + "b"), ("a pie", "the Acme of", "a a a c"), ("ac.me",)),
    Brand("Google", ("G", "Google Cloud Platform"), (), ("google.com",)),
    Brand("\ub124\uc774\ubc84"),
)
HOSTILE = [
    *("a", "a ", "a\n", "a/", "&a", "a&", "a.", "..a", "a-", "-.a-", "a'", "o'a ", "_a_ ", "a++ ", "**a** ", "(", "["),
    *("1. a\n", "- a\n\n", "\t\t- a\n", "> > > a\n", "###### a\n", "| 1 | a |\n", "\n", " ", "mr. a ", "1.a 2.a "),
    *("http://a.b ", "http://a(", "http://x/(a", "http://u:p@a.b/", "://", "](", "[a](ac.me) ", "www.a.b.", "ab.c"),
    *("a&amp;", "a&#39;a ", "<a>", "/usr/a/", "c:\\a\\", "~/a/", " ac.me/a/a", "ac.me/a?a=a&", "acme" * 40 + " "),
    *("a\u200ba", "a\u0301", "\ufdfa", "a\u4e2d", "\ub124\uc774\ubc84\uc740", "a\u0e01a", "a\u05d0", "\u0131\u0130"),
    *("a a a c ", "the Acme of the Acme of ", "Google-Cloud-Platform-", "Acme Cloud ", "a/&a-'._a@"),
]


def calls_of(work: Callable[[], object]) -> int:
    """Calls of functions, those written in C with them."""
    count = 0

    def see(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event.endswith("call")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def cut(piece: str, length: int) -> str:
    return (piece * (length // len(piece) + 1))[:length]


@pytest.mark.parametrize("piece", HOSTILE)
def test_work_grows_as_the_text_does(piece: str) -> None:
    detector = detector_of(BRANDS)
    less, more = cut(piece, 800), cut(piece, 2_400)
    detector.detect(more)  # fills what is remembered of single characters
    assert calls_of(lambda: detector.detect(more)) <= 3.3 * calls_of(lambda: detector.detect(less)) + 300


def test_marks_on_one_letter_are_folded_a_few_at_a_time() -> None:
    """Python orders the marks of a letter in time that grows with the square of their number: minutes for this text."""
    folded = fold("a" + "\u0301\u0323" * 50_000)
    spans = [folded.original_span(place, place + 1) for place in range(0, len(folded.text), 500)]
    assert max(end - start for start, end in spans) <= 32


@pytest.mark.parametrize("piece", ["a ", "a/", "a.", "ab.c ", "a\u0301"])
def test_one_long_text_is_left_where_it_is_not_wanted_any_more(piece: str) -> None:
    looks = 0

    def stop_late() -> bool:
        nonlocal looks
        looks += 1
        return looks > 3

    with pytest.raises(Stopped):
        run_stoppable(stop_late, detect_answers, BRANDS, [cut(piece, 40_000)], Depth())


def test_of_many_texts_those_after_the_end_are_not_looked_at() -> None:
    with pytest.raises(Stopped):
        run_stoppable(lambda: True, detect_answers, BRANDS, ["a"], Depth())
