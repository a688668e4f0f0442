"""Rows in the format of COPY: nothing in a value can end a field or a row."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, LargeBinary, MetaData, Table, Text

from services.runtime.copy_text import CopyText

TABLE = Table("t", MetaData(), Column("a", Text), Column("b", Text), Column("c", LargeBinary))
ESCAPED = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def read_back(data: bytes) -> list[list[str | bytes | None]]:
    """What PostgreSQL reads: https://www.postgresql.org/docs/current/sql-copy.html, "Text Format"."""
    return [[_value(part) for part in line.split("\t")] for line in data.decode().split("\n")[:-1]]


def _value(part: str) -> str | bytes | None:
    if part == r"\N":
        return None
    if part.startswith(r"\\x"):
        return bytes.fromhex(part[3:])
    text, position = "", 0
    while position < len(part):
        pair = part[position : position + 2]
        text += ESCAPED.get(pair, part[position])
        position += 2 if pair in ESCAPED else 1
    return text


texts = st.text(st.sampled_from("ab\t\n\r\\N"), max_size=4).filter(lambda text: not text.startswith("\\x"))


@given(st.lists(st.tuples(st.none() | texts, st.none() | texts, st.none() | st.binary(max_size=3)), max_size=5))
def test_rows_are_read_as_they_were_written(rows: list[tuple[Any, Any, Any]]) -> None:
    written = CopyText(TABLE, ("a", "b", "c")).data([dict(zip("abc", row, strict=True)) for row in rows])
    assert read_back(written) == [list(row) for row in rows]


def test_a_row_that_makes_up_for_what_another_lacks_is_escaped() -> None:
    # The first row has no line of its own in the fast form, and the second would be two.
    rows: list[dict[str, Any]] = [{"a": None, "b": "", "c": b""}, {"a": "x", "b": "y\t\n\t\\\\", "c": b""}]
    written = CopyText(TABLE, ("a", "b", "c")).data(rows)
    assert read_back(written) == [list(row.values()) for row in rows]


@pytest.mark.parametrize("value", ["plain", "tab\t", None])
def test_a_table_can_have_one_column(value: str | None) -> None:
    assert read_back(CopyText(TABLE, ("a",)).data([{"a": value}])) == [[value]]
