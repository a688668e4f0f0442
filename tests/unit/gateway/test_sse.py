"""The event-stream parser, at every byte boundary."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.providers.sse import SseEvent, SseEventTooLarge, SseParser

STREAM = (
    b"\xef\xbb\xbf: a comment\n\nevent: first\ndata: one\n\n"
    b"data: two\r\ndata:  three\r\n\r\nid: 7\rretry: 5\rdata:four\r\revent: none\n\n"
    b"data\n\ndata: caf\xc3\xa9\n\ndata: never ended\n"
)
EVENTS = [
    SseEvent(b"first", b"one"),
    SseEvent(b"", b"two\n three"),
    SseEvent(b"", b"four"),
    SseEvent(b"", b""),
    SseEvent(b"", b"caf\xc3\xa9"),
]


def parse(*pieces: bytes, limit: int = 1_000) -> list[SseEvent]:
    parser = SseParser(limit)
    return [event for piece in pieces for event in parser.feed(piece)]


def test_the_rules_of_the_specification() -> None:
    assert parse(STREAM) == EVENTS


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_torn_at_every_byte(cut: int) -> None:
    assert parse(STREAM[:cut], STREAM[cut:]) == EVENTS


def test_byte_by_byte() -> None:
    assert parse(*(STREAM[index : index + 1] for index in range(len(STREAM)))) == EVENTS


def test_empty_lines_of_data_are_part_of_the_event_that_ends_with_the_next_piece() -> None:
    assert parse(b"data: \ndata: \n", b"data: \n\n") == [SseEvent(b"", b"\n\n")]


line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


@given(
    st.lists(st.lists(line, min_size=1, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_whatever_is_written_is_read(events: list[list[str]], newline: str, cuts: list[int]) -> None:
    text = "".join("".join(f"data: {one}{newline}" for one in lines) + newline for lines in events).encode()
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    assert [event.data.decode() for event in parse(*pieces, limit=10_000)] == ["\n".join(lines) for lines in events]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 200, b"data: 0123456789\n" * 20], ids=["line", "lines"])
def test_an_event_has_a_bound(piece: bytes) -> None:
    with pytest.raises(SseEventTooLarge):
        parse(*(piece[index : index + 7] for index in range(0, len(piece), 7)), limit=100)


def test_many_small_events_in_one_read_are_not_too_large() -> None:
    assert len(parse(b"data: 0123456789\n\n" * 100, limit=100)) == 100
