"""Blocks: what all groups of a view come to in one bucket of time, packed into arrays.

Thousands of groups are added up from few blocks at once, where rows of the view would be read one by one. A view's
columns make parts: a model goes with its provider, every other column stands alone. Each value of a part has a number,
its place among the block's names; a group is one number, its place in the table of all values of all parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

Integers = NDArray[np.int64]

_WIDTHS: Final = (("u1", 1 << 8), ("u2", 1 << 16), ("u4", 1 << 32))
_WIDE: Final = "i8"
_NONE: Final = ""
SEPARATOR: Final = "\0"
"""Between the columns of a part; no text on record has it, and names keep the order of their columns."""


def parts_of_columns(columns: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The parts that the columns of a view make."""
    if "model" not in columns:
        return tuple([(name,) for name in columns])
    at = columns.index("model")
    assert columns[at - 1] == "provider"
    return (*parts_of_columns(columns[: at - 1]), ("provider", "model"), *parts_of_columns(columns[at + 1 :]))


@dataclass(frozen=True, slots=True)
class Coded:
    """Values as places in the list of those that there are, which is in order."""

    names: list[str]
    codes: Integers


def coded(values: Sequence[str]) -> Coded:
    """Give each value its place."""
    names = sorted(set(values))
    places = {name: place for place, name in enumerate(names)}
    return Coded(names, np.fromiter((places[value] for value in values), np.int64, len(values)))


@dataclass(frozen=True, slots=True)
class Block:
    """The groups of a bucket in their order, and their sums."""

    names: tuple[list[str], ...]
    """The values of each part."""
    groups: Integers
    sums: Integers
    """A row for each column that is summed, a column for each group."""

    def codes(self) -> list[Integers]:
        """For each part the place of each group's value."""
        return codes_of(self.groups, self.names)


def codes_of(groups: Integers, names: Sequence[Sequence[str]]) -> list[Integers]:
    """For each part the place of each group's value, among the values of the parts."""
    found = []
    rest = groups
    for values in reversed(names[1:]):
        above = rest // len(values)
        found.append(rest - above * len(values))  # the remainder, which NumPy takes long to find
        rest = above
    return [rest, *found[::-1]]


def block_of(parts: Sequence[Coded], sums: Integers) -> Block:
    """Sum up rows by their groups."""
    groups = np.zeros(sums.shape[1], np.int64)
    for part in parts:
        groups = groups * len(part.names) + part.codes
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    summed = np.zeros((len(sums), len(starts)), np.int64)
    for row, target in zip(sums, summed, strict=True):
        if row.any():
            target[:] = np.add.reduceat(row[order], starts)
    return Block(tuple([part.names for part in parts]), ordered[starts], summed)


def merged(blocks: Sequence[Block]) -> Block:
    """The sum of at least one block of the same view."""
    if len(blocks) == 1:
        return blocks[0]
    of_blocks = [block.codes() for block in blocks]
    parts = []
    for place in range(len(blocks[0].names)):
        names = sorted({name for block in blocks for name in block.names[place]})
        places = {name: number for number, name in enumerate(names)}
        maps = [np.array([places[name] for name in block.names[place]], np.int64) for block in blocks]
        codes = [one[codes[place]] for one, codes in zip(maps, of_blocks, strict=True)]
        parts.append(Coded(names, np.concatenate(codes)))
    return block_of(parts, np.concatenate([block.sums for block in blocks], axis=1))


def packed_names(block: Block) -> bytes:
    """The values of its parts, to be kept."""
    return orjson.dumps(block.names)


def packed_sums(block: Block) -> bytes:
    """Its groups and sums, to be kept: each number as narrow as the widest of its row, nothing for rows of zeros."""
    rows = [block.groups, *block.sums]
    kinds = [_kind(row) for row in rows]
    head = orjson.dumps([len(block.groups), kinds])
    body = [row.astype(f"<{kind}").tobytes() for row, kind in zip(rows, kinds, strict=True) if kind]
    return b"".join([len(head).to_bytes(4, "little"), head, *body])


class PackedBlock:
    """Reads what `packed_sums` has made, number by number as narrow as it was kept."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        at = 4 + int.from_bytes(content[:4], "little")
        self._count, kinds = orjson.loads(content[4:at])
        self._rows: list[tuple[str, int]] = []
        for kind in kinds:
            self._rows.append((kind, at))
            at += self._count * np.dtype(kind).itemsize if kind else 0

    def groups(self) -> Integers:
        """The groups in their order."""
        groups = self._row(0)
        if groups is None:
            return np.zeros(self._count, np.int64)
        # Wide enough for the number of values of a part, by which they are divided.
        return groups if groups.itemsize >= 4 else groups.astype(np.uint32)

    def sums(self, row: int) -> Integers | None:
        """The sums of a row, a number for each group; None where all are zero."""
        return self._row(row + 1)

    def whole(self, names: tuple[list[str], ...]) -> Block:
        """The block that was packed."""
        sums = np.zeros((len(self._rows) - 1, self._count), np.int64)
        for row, target in enumerate(sums):
            if (found := self.sums(row)) is not None:
                target[:] = found
        return Block(names, self.groups().astype(np.int64), sums)

    def _row(self, number: int) -> Integers | None:
        kind, at = self._rows[number]
        return np.frombuffer(self._content, f"<{kind}", self._count, at) if kind else None


def unpacked_names(content: bytes) -> tuple[list[str], ...]:
    """The values of the parts of a block."""
    return tuple(orjson.loads(content))


def _kind(row: Integers) -> str:
    least, most = (int(row.min()), int(row.max())) if len(row) else (0, 0)
    if least < 0:
        return _WIDE
    if most == 0:
        return _NONE
    return next((kind for kind, limit in _WIDTHS if most < limit), _WIDE)
