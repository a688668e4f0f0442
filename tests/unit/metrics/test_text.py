import string
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.metrics.text import Text, split_sentences, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t ", []),
        ("The cat sat.", ["the", "cat", "sat"]),
        ("don't, 'quoted' and it\u2019s", ["don't", "quoted", "and", "it's"]),
        ("state-of-the-art -- or - not--so", ["state-of-the-art", "or", "not", "so"]),
        ("pi is 3.14, not 3,000.", ["pi", "is", "3.14", "not", "3.000"]),
        ("**bold** _x_ `code` #tag", ["bold", "x", "code", "tag"]),
        ("STRASSE Stra\u00dfe", ["strasse", "strasse"]),
        ("\u6771\u4eac is big", ["\u6771", "\u4eac", "is", "big"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("a\x00b", ["a", "b"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("One. Two! Three?", 3),
        ("No end", 1),
        ("Dr. Smith met J. Doe at 3.5 p.m. yesterday. He left.", 2),
        ('He said "stop." Then he left.', 2),
        ("Wait... what?", 2),
        ("First line\nsame sentence.", 1),
        ("# Title\n\nText here", 2),
        ("Items:\n- one\n- two\n1. three", 4),
        ("\u4f60\u597d\u3002\u518d\u89c1\u3002", 2),
        ("Visit example.com now.", 1),
        ("1. One\n2. Two\n\nThat was in 1990. Then it ended.", 4),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(split_sentences(text)) == count


def test_paragraphs_and_lines() -> None:
    text = Text("a\r\nb\n\n \n\nc\n")
    assert text.lines == ["a", "b", "", " ", "", "c", ""]
    assert text.paragraphs == 2


@given(st.text())
@example("\u2e80")  # a sign of a script without spaces that is no letter
def test_any_text_is_taken_apart(raw: str) -> None:
    text = Text(raw)
    assert all(word and word == word.strip(" '-.") for word in text.words)
    assert sum(text.word_counts.values()) == len(text.words)
    assert all(sentence in raw for sentence in text.sentences)
    # A text has sentences exactly where it has words.
    assert bool(text.words) == bool(text.sentences)


@given(st.lists(st.text(string.ascii_letters + string.digits, min_size=1), min_size=1))
def test_plain_words_come_back(words: list[str]) -> None:
    assert split_words(" ".join(words)) == [word.lower() for word in words]


@pytest.mark.parametrize(
    "hostile",
    [
        "x" * 5_000_000,
        "." * 2_000_000 + "x",
        "\n" * 100_000,
        "a." * 500_000,
        "\x00" * 1_000_000,
        "'-" * 500_000,
        '."' * 500_000,
    ],
    ids=["one line", "points", "newlines", "pairs", "NULs", "joiners", "quotes"],
)
@pytest.mark.timeout(30)  # a quadratic step would take hours
def test_hostile_text_is_linear(hostile: str) -> None:
    text = Text(hostile)
    assert len(text.words) <= 500_000
    assert len(text.sentences) <= 1
    assert text.paragraphs <= 1


# Of Python 3.11, 3.12 and 3.13 alike.
TABLES_DIGEST = "974c979875734c194b6ff8f3d634a6b9db7f69ed66d4acb2cfd057e4d33d262d"


def test_cases_and_white_space_are_the_same_on_every_supported_python() -> None:
    # All that is used of Python's own Unicode tables; these parts of them have not changed since 14.0.
    tables = "".join(
        f"{character.casefold()}|{character.lower()}|{int(character.isspace())};"
        for character in map(chr, (code for code in range(0x110000) if not 0xD800 <= code < 0xE000))
    )
    assert sha256(tables.encode()).hexdigest() == TABLES_DIGEST
