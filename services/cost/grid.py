"""Adds up blocks by the groups of a question, and finds the groups of a page.

Every group has a cell of a grid whose axes are the dimensions of the question, in the order of its keys; the values of
an axis are in order too, so that cells follow each other as their groups' keys do.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from services.cost.blocks import SEPARATOR, Integers, codes_of, parts_of_columns

Table = Mapping[str, Sequence[Any]]
"""Columns by their names."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a question wants of a part of a view's columns."""

    columns: tuple[str, ...]
    kept: tuple[int, ...]
    """The places of those that it groups by; empty where it does not."""
    wanted: tuple[tuple[int, str], ...]
    """The places of those that it filters by, and their values."""

    def values_of(self, names: Sequence[str]) -> Sequence[str | None]:
        """Values of the part as the question tells values apart; None for those that the filter leaves out."""
        if not self.wanted and len(self.kept) == len(self.columns):
            return names
        return [self._value_of(name.split(SEPARATOR)) for name in names]

    def _value_of(self, values: Sequence[str]) -> str | None:
        if any(values[place] != value for place, value in self.wanted):
            return None
        return SEPARATOR.join([values[place] for place in self.kept])


def joined(table: Table, columns: Sequence[str]) -> list[str]:
    """The values of some columns of a table, as an axis of them has them."""
    return list(map(SEPARATOR.join, zip(*[table[name] for name in columns], strict=True)))


def parts_for(columns: Sequence[str], keys: Sequence[str], conditions: Mapping[str, str]) -> list[Part] | None:
    """What a question with these keys wants of a view's parts; None where the columns of one do not stay together."""
    parts = []
    for names in parts_of_columns(columns):
        kept = tuple([place for place, name in enumerate(names) if name in keys])
        if kept and tuple(keys[(at := keys.index(names[kept[0]])) : at + len(kept)]) != tuple(names[i] for i in kept):
            return None
        wanted = tuple([(place, conditions[name]) for place, name in enumerate(names) if name in conditions])
        parts.append(Part(names, kept, wanted))
    return parts


@dataclass(frozen=True, slots=True)
class Axis:
    """The values of a dimension, in order, and the columns of keys that they are joined of."""

    columns: tuple[str, ...]
    values: list[Any]
    step: int
    """How many cells lie between two of its values."""

    @property
    def numbered(self) -> bool:
        """Whether its values are the numbers of periods."""
        return bool(self.values) and isinstance(self.values[0], int)

    def keys_of(self, cell: int) -> dict[str, Any]:
        """The keys of a cell by their columns."""
        value = self.values[cell // self.step % len(self.values)]
        return dict(zip(self.columns, (value,) if self.numbered else value.split(SEPARATOR), strict=True))


class Axes:
    """The axes of a grid, and the way from a view's groups to its cells."""

    def __init__(self, parts: Sequence[Part], order: Sequence[tuple[tuple[str, ...], list[Any]]]) -> None:
        """`order` has the columns and the values of the axes, the values each once and in their order."""
        self._parts = parts
        self.axes: list[Axis] = []
        sizes = [max(1, len(values)) for _, values in order]
        for number, (columns, values) in enumerate(order):
            self.axes.append(Axis(columns, values, prod(sizes[number + 1 :])))
        self.cells = prod(sizes)
        self._of_columns = {axis.columns: axis for axis in self.axes}
        self._places = cache(self._places_of)
        self.distinct = all(len(part.kept) == len(part.columns) for part in parts)
        """Whether each group of the view has a cell of its own."""
        self.filtered = any(part.wanted for part in parts)
        """Whether groups of the view are left out."""

    def step_of(self, column: str) -> int:
        """How many cells lie between two values of an axis; all of them where there is no such axis."""
        axis = self._of_columns.get((column,))
        return axis.step if axis else self.cells

    def cells_of(self, names: tuple[list[str], ...], groups: Integers) -> Integers:
        """The cell of each of a block's groups, without that of its period; -1 for those that are left out."""
        cells = np.zeros(len(groups), np.int64)
        left_out = np.zeros(len(groups), np.bool)
        for number, codes in enumerate(codes_of(groups, names)):
            places = self._places(number, tuple(names[number]))
            of_part = places[codes]
            cells += of_part
            if self._parts[number].wanted:
                left_out |= of_part < 0
        cells[left_out] = -1
        return cells

    def _places_of(self, number: int, names: tuple[str, ...]) -> Integers:
        part = self._parts[number]
        values = part.values_of(names)
        if not part.kept:
            return np.array([-1 if value is None else 0 for value in values], np.int64)
        axis = self._of_columns[tuple([part.columns[place] for place in part.kept])]
        places = {value: place * axis.step for place, value in enumerate(axis.values)}
        return np.array([-1 if value is None else places[value] for value in values], np.int64)

    def cells_of_rows(self, table: Table) -> Integers:
        """The cell of each row of a table with the keys, without that of its period."""
        size = len(next(iter(table.values())))
        cells = np.zeros(size, np.int64)
        for axis in self.axes:
            if not axis.numbered:
                places = {value: place * axis.step for place, value in enumerate(axis.values)}
                cells += np.fromiter((places[value] for value in joined(table, axis.columns)), np.int64, size)
        return cells

    def first_after(self, position: Sequence[Any]) -> int:
        """The first cell whose keys come after these, whether there is a cell of these or not."""
        cell = 0
        rest = list(position)
        for axis in self.axes:
            keys, rest = rest[: len(axis.columns)], rest[len(axis.columns) :]
            value = keys[0] if axis.numbered else SEPARATOR.join(keys)
            place = bisect_left(axis.values, value)
            cell += place * axis.step
            if place == len(axis.values) or axis.values[place] != value:
                return cell
        return cell + 1

    def keys_of(self, cell: int) -> dict[str, Any]:
        """The keys of a cell by their columns."""
        return {name: key for axis in self.axes for name, key in axis.keys_of(cell).items()}


def first_by_cost(costs: Integers, cells: Integers, limit: int) -> Integers:
    """The dearest of these cells, in the order of their cost and then of their keys; `costs` are those of all cells."""
    of_cells = -costs[cells]
    if len(cells) > limit:
        least = np.partition(of_cells, limit - 1)[limit - 1]
        cells = cells[of_cells <= least]
        of_cells = -costs[cells]
    chosen: Integers = cells[np.lexsort((cells, of_cells))][:limit]
    return chosen
