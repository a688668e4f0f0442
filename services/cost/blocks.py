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
        found = []
        rest = self.groups
        for names in reversed(self.names):
            found.append(rest % len(names))
            rest = rest // len(names)
        return found[::-1]


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


def unpacked(names: tuple[list[str], ...], content: bytes, rows: Sequence[int] | None = None) -> Block:
    """The block that was packed; with the sums of these rows alone, where they are named."""
    head_end = 4 + int.from_bytes(content[:4], "little")
    count, kinds = orjson.loads(content[4:head_end])
    wanted = range(len(kinds) - 1) if rows is None else rows
    sums = np.zeros((len(wanted), count), np.int64)
    groups = np.zeros(count, np.int64)
    targets = {row + 1: sums[place] for place, row in enumerate(wanted)} | {0: groups}
    at = head_end
    for number, kind in enumerate(kinds):
        if kind == _NONE:
            continue
        if number in targets:
            targets[number][:] = np.frombuffer(content, f"<{kind}", count, at)
        at += count * np.dtype(kind).itemsize
    return Block(names, groups, sums)


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
