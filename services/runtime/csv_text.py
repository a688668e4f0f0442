"""Lines of CSV (RFC 4180, UTF-8, ended by CR LF) that a spreadsheet may open.

A spreadsheet runs a text cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return as a formula, and what a
model or a caller wrote is not to be run: `guarded` puts a `'` in front (OWASP, "CSV Injection").
"""

import csv
import io
from collections.abc import Iterable

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """The lines of some rows; None is an empty cell."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue()
