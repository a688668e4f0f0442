"""Rows in the text format of PostgreSQL's COPY, which costs both sides less than parameters do."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import LargeBinary, Table

# https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
_NULL: Final = r"\N"
_BYTES: Final = r"\\x"
_NOT_PLAIN: Final = "\r"
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


class CopyText:
    """Writes rows for a list of columns of a table."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        # Of a single name it would give the value itself.
        self._values_of = itemgetter(*columns) if len(columns) > 1 else lambda row: (row[columns[0]],)
        self._bytes = tuple(
            [index for index, name in enumerate(columns) if isinstance(table.c[name].type, LargeBinary)]
        )
        places = [_BYTES + "%s" if index in self._bytes else "%s" for index in range(len(columns))]
        self._line = "\t".join(places) + "\n"
        self._tabs = len(columns) - 1
        self._backslashes = _BYTES.count("\\") * len(self._bytes)

    def data(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """The rows, of plain values: str, int, float, bool, bytes, None."""
        lines = [self._plain_line(self._values_of(row)) for row in rows]
        whole = "".join(lines)
        # Hardly a text contains what has to be escaped: one look at all lines finds out whether any does.
        if not self._is_plain(whole, len(rows)):
            pairs = zip(lines, rows, strict=True)
            whole = "".join([line if self._is_plain(line, 1) else self._escaped_line(row) for line, row in pairs])
        return whole.encode()

    def _plain_line(self, values: tuple[Any, ...]) -> str:
        """The line of values that need no escaping; of others it is not `_is_plain`."""
        if None in values:
            return _NOT_PLAIN
        if not self._bytes:
            return self._line % values
        plain = list(values)
        for index in self._bytes:
            plain[index] = plain[index].hex()
        return self._line % tuple(plain)

    def _is_plain(self, text: str, lines: int) -> bool:
        return (
            text.count("\n") == lines
            and text.count("\t") == self._tabs * lines
            and text.count("\\") == self._backslashes * lines
            and _NOT_PLAIN not in text
        )

    def _escaped_line(self, row: Mapping[str, Any]) -> str:
        return "\t".join(map(_escaped, self._values_of(row))) + "\n"


def _escaped(value: Any) -> str:
    if value is None:
        return _NULL
    if isinstance(value, bytes):
        return _BYTES + value.hex()
    return str(value).translate(_ESCAPES)
