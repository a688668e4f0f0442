"""Rows in the text format of PostgreSQL's COPY, which costs both sides less than parameters do."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import LargeBinary, Table

# https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
_NULL: Final = r"\N"
_BYTES: Final = r"\\x"
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


class CopyText:
    """Writes rows for a list of columns of a table."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)
        self._bytes = tuple(
            [index for index, name in enumerate(columns) if isinstance(table.c[name].type, LargeBinary)]
        )
        places = [_BYTES + "%s" if index in self._bytes else "%s" for index in range(len(columns))]
        self._line = "\t".join(places)
        self._tabs = len(columns) - 1
        self._backslashes = _BYTES.count("\\") * len(self._bytes)

    def data(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """The rows, of plain values: str, int, float, bool, bytes, None."""
        return "".join([self._line_of([row[name] for name in self._columns]) for row in rows]).encode()

    def _line_of(self, values: list[Any]) -> str:
        if None not in values:
            plain = values.copy() if self._bytes else values
            for index in self._bytes:
                plain[index] = plain[index].hex()
            line = self._line % tuple(plain)
            # Hardly a text contains what has to be escaped: one look at the whole line finds those that do.
            if (
                line.count("\t") == self._tabs
                and line.count("\\") == self._backslashes
                and "\n" not in line
                and "\r" not in line
            ):
                return line + "\n"
        return "\t".join(map(_escaped, values)) + "\n"


def _escaped(value: Any) -> str:
    if value is None:
        return _NULL
    if isinstance(value, bytes):
        return _BYTES + value.hex()
    return str(value).translate(_ESCAPES)
