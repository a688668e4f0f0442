"""Which Markdown structure the answer has, and whether it is well formed."""

import re
from collections.abc import Sequence

from services.metrics.declarations import Absent, NoParameters, Scorer, Subject, Value, count, unit

NO_STRUCTURE = Absent("the answer has no headings, numbered lists, tables or code blocks")

_FENCE = re.compile(r"(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r"(\#{1,6})(?:[ \t]|\Z)")
_BULLET = re.compile(r"[-*+\u2022][ \t]")
_NUMBERED = re.compile(r"([0-9]{1,9})[.)][ \t]")
_DELIMITER_CELL = re.compile(r"[ \t]*:?-+:?[ \t]*")

# A line that starts with none of these, after its indent, has no structure.
_STRUCTURE_STARTS = frozenset("`~#-*+\u2022|0123456789")
# Deeper indents count as this deep, so that a hostile text keeps few numberings in mind.
_INDENT_MAX = 64


class MarkdownReader:
    """Reads the lines of one text in one pass, counting constructs and those that are well formed."""

    def __init__(self) -> None:
        """Starts with nothing read."""
        self.headings = 0
        self.list_items = 0
        self.code_blocks = 0
        self.table_rows = 0
        self.checked = 0
        self.sound = 0
        self._fence = ""
        self._heading_level = 0
        self._last_number: dict[int, int] = {}
        self._table: list[list[str]] = []

    def read(self, lines: Sequence[str]) -> None:
        """Reads all of `lines`."""
        for line in lines:
            body = line.lstrip(" \t")
            if self._fence:
                self._continue_code(body)
            elif body[:1] in _STRUCTURE_STARTS and body:
                self._structured_line(body, min(len(line) - len(body), _INDENT_MAX))
            elif self._table:
                self._end_table()
        self._end_table()
        if self._fence:
            self._check(sound=False)

    def _check(self, *, sound: bool) -> None:
        self.checked += 1
        self.sound += sound

    def _continue_code(self, body: str) -> None:
        """A code block ends at a fence of its own character that is at least as long and carries nothing else."""
        match = _FENCE.match(body)
        if match and match[1].startswith(self._fence) and not match[2].strip():
            self._fence = ""
            self._check(sound=True)

    def _structured_line(self, body: str, indent: int) -> None:
        if body[0] == "|":
            self.table_rows += 1
            self._table.append(body.rstrip().strip("|").split("|"))
            return
        self._end_table()
        if match := _FENCE.match(body):
            self.code_blocks += 1
            self._fence = match[1]
        elif match := _HEADING.match(body):
            self._heading(len(match[1]))
        elif match := _NUMBERED.match(body):
            self._numbered(int(match[1]), indent)
        elif _BULLET.match(body):
            self.list_items += 1

    def _heading(self, level: int) -> None:
        """A heading is well formed where it skips no level on the way down. Numbered lists start anew under it."""
        self.headings += 1
        self._check(sound=not self._heading_level or level <= self._heading_level + 1)
        self._heading_level = level
        self._last_number.clear()

    def _numbered(self, number: int, indent: int) -> None:
        """An item is well formed where it starts a list, starts over at 1, or follows its predecessor."""
        self.list_items += 1
        last = self._last_number.get(indent)
        self._check(sound=last is None or number in (1, last + 1))
        self._last_number[indent] = number
        for deeper in [other for other in self._last_number if other > indent]:
            del self._last_number[deeper]

    def _end_table(self) -> None:
        """A table is well formed where its second row is the delimiter and all rows have as many cells as the first."""
        rows, self._table = self._table, []
        if rows:
            delimited = len(rows) > 1 and all(_DELIMITER_CELL.fullmatch(cell) for cell in rows[1])
            self._check(sound=delimited and all(len(row) == len(rows[0]) for row in rows))


def read_structure(subject: Subject) -> MarkdownReader:
    """The answer's structure."""
    reader = MarkdownReader()
    reader.read(subject.answer.lines)
    return reader


def well_formed(subject: Subject) -> Value:
    """The share of the answer's checked constructs that are well formed."""
    reader = subject.once(read_structure)
    return reader.sound / reader.checked if reader.checked else NO_STRUCTURE


def _structure(subject: Subject, _: NoParameters) -> Sequence[Value]:
    reader = subject.once(read_structure)
    return (
        float(reader.headings),
        float(reader.list_items),
        float(reader.code_blocks),
        float(reader.table_rows),
        well_formed(subject),
    )


STRUCTURE = Scorer(
    name="structure",
    version="1",
    description="Which Markdown structure the answer has, and whether it is well formed.",
    citation="Markdown as CommonMark 0.31 and GitHub tables write it; the checks are our own.",
    scores=(
        count("Headings (# to ######).", "headings"),
        count("Items of bulleted and numbered lists.", "list_items"),
        count("Fenced code blocks.", "code_blocks"),
        count("Rows of tables, the delimiter row included.", "table_rows"),
        unit(
            "Of code blocks (closed), tables (delimiter row, equal rows), numbered items (in order) and headings (no "
            "level skipped): the share that is well formed. Absent where there are none.",
            "well_formed",
        ),
    ),
    function=_structure,
    in_default_set=True,
)
