from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.metrics.brands.characters import character_class, fold_character, joins
from services.metrics.brands.folding import fold


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Stripe", "stripe"),
        ("Stra\u00dfe STRA\u1e9eE", "strasse strasse"),
        ("\u0130stanbul I\u0307zmir", "istanbul izmir"),
        ("e\u0301 \u00c9", "\u00e9 \u00e9"),
        ("\uff33\uff54\uff52\uff49\uff50\uff45", "stripe"),
        ("\ufb01ne\u2026", "fine..."),
        ("Str\u00adi\u200dpe", "stripe"),
        ("a\u2019b\u2011c\u00a0d", "a'b-c d"),
        ("Stripe\u2122 m\u00b2", "stripe\u2122 m\u00b2"),
        ("\uff76\uff9e", "\u30ac"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("a\u2028b\x85c", "a\nb\nc"),
        ("\ud800", "\ufffd"),
    ],
)
def test_folding(text: str, folded: str) -> None:
    assert fold(text).text == folded


@pytest.mark.parametrize(
    ("text", "name", "original"),
    [
        ("\u00df\u00df stripe", "stripe", "stripe"),
        ("x Str\u00adipe y", "stripe", "Str\u00adipe"),
        ("\u2026\u2026e\u0301t\u00e9!", "\u00e9t\u00e9", "e\u0301t\u00e9"),
        ("Wei\u00df", "weiss", "Wei\u00df"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8", "\uad6d", "\u1100\u116e\u11a8"),
        ("\u200d\u200dab\u200d", "ab", "ab"),
    ],
)
def test_spans_lead_back(text: str, name: str, original: str) -> None:
    folded = fold(text)
    start = folded.text.index(name)
    first, last = folded.original_span(start, start + len(name))
    assert text[first:last] == original


@given(st.text(alphabet=st.characters(), max_size=60))
@example("I\u0307\u0307")
@example("\u00dfe\u0301\u200d\ufb03")
def test_every_span_lies_in_the_text_and_spans_keep_their_order(text: str) -> None:
    folded = fold(text)
    spans = [folded.original_span(at, at + 1) for at in range(len(folded.text))]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert spans == sorted(spans)
    if text.isascii():
        assert spans == [(at, at + 1) for at in range(len(text))]


# Scripts and signs, without the large blocks whose code points are all alike.
BLOCKS = ((0, 0x3400), (0xA000, 0xAC00), (0xF900, 0x12000), (0x1D000, 0x1FB00), (0xE0000, 0xE0200))


def test_code_points_fold_and_are_classed_alike_on_every_supported_python() -> None:
    digest = sha256()
    for character in (chr(code_point) for block in BLOCKS for code_point in range(*block)):
        digest.update(b"%d %s" % (character_class(character), fold_character(character).encode()))
    assert digest.hexdigest() == "ad44198bee12f8125a6bc17703cf6c37e01c5f7edc26265f38bb7e50c1006da2"


@pytest.mark.parametrize(
    ("left", "right", "joined"),
    [
        ("a", "b", True),
        ("a", "1", True),
        ("1", "a", True),
        ("a", "\u0301", True),
        ("a", " ", False),
        ("a", "\u4e2d", False),
        ("\u4e2d", "\u6587", False),
        ("\u4e2d", "1", False),
        ("\u30a2", "\u30fc", True),
        ("\u0e01", "\u0e48", True),
        ("\u0e48", "\u0e01", False),
        ("a", "\u05d0", False),
        ("\u0430", "\u0431", True),
        ("\ud55c", "\uad6d", True),
        ("a", "_", False),
        ("a", "\U0001f680", False),
    ],
)
def test_which_neighbours_are_one_word(left: str, right: str, joined: bool) -> None:
    assert joins(left, right) is joined
