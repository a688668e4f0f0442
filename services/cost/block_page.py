"""A page of groups out of blocks and the rows beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.cost.blocks import Integers, PackedBlock
from services.cost.grid import Axes, Part, Table, first_by_cost, joined


@dataclass(frozen=True, slots=True)
class UsedBlock:
    """A block as it is on record, and what it is used for."""

    names: tuple[list[str], ...]
    packed: PackedBlock
    uses: Sequence[tuple[int, int]]
    """The sign with which it is added, and the place of the slot that it is added to."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a question's groups are laid out."""

    keys: Sequence[str]
    """The columns of its groups, in their order."""
    slot: str
    """The column of the slots: a key where slots are periods; else they are planes of the grid."""
    slots: Sequence[int]
    """The numbers of the slots, in order."""
    ranked: Mapping[str, int]
    """The sums by which it is seen that a group is there, and their places in blocks; the last is the cost."""
    counted: Mapping[str, int]
    """Sums that are needed of the page's groups alone, and their places."""


class BlockPage:
    """Adds up what a question needs, first for all groups, then the rest of it for those of the page."""

    def __init__(self, layout: Layout, parts: Sequence[Part], blocks: Sequence[UsedBlock], rest: Table) -> None:
        """`rest` has the sums that are in no block, by the layout's slot and keys; each group of a slot once."""
        self._layout = layout
        self._blocks = blocks
        self._rest = rest
        self._axes = Axes(parts, self._order(parts))
        planes = 1 if layout.slot in layout.keys else len(layout.slots)
        self.cells = self._axes.cells * planes
        """How many groups it adds up."""

    def _order(self, parts: Sequence[Part]) -> list[tuple[tuple[str, ...], list[Any]]]:
        """The axes: their columns and values, in the order of the keys."""
        layout = self._layout
        found: list[tuple[tuple[str, ...], list[Any]]] = []
        if layout.slot in layout.keys:
            found.append(((layout.slot,), list(layout.slots)))
        lists = {id(block.names): block.names for block in self._blocks}.values()
        for place, part in enumerate(parts):
            if part.kept:
                columns = tuple([part.columns[kept] for kept in part.kept])
                values: set[str | None] = set().union(*[part.values_of(names[place]) for names in lists])
                values |= set(joined(self._rest, columns))
                found.append((columns, sorted(value for value in values if value is not None)))
        return sorted(found, key=lambda axis: layout.keys.index(axis[0][0]))

    def rows(self, *, by_cost: bool, after: Sequence[Any], limit: int) -> list[dict[str, Any]]:
        """At most `limit` groups after a position, with their keys and sums.

        What was ranked in the second plane, the window that is compared with, is called "before_...". Groups are in
        the order of their keys, or in that of their costs, where a position begins with one.
        """
        cells = [self._axes.cells_of(block.names, block.packed.groups()) for block in self._blocks]
        ranked = self._added(cells, self._layout.ranked, None, self.cells)
        planes = ranked.reshape(len(ranked), -1, self._axes.cells)
        there = np.flatnonzero(planes.any(axis=(0, 1)))
        costs = planes[-1, 0]
        if by_cost:
            chosen = first_by_cost(costs, self._cheaper(there, costs, after), limit)
        else:
            chosen = there[np.searchsorted(there, self._axes.first_after(after)) if after else 0 :][:limit]
        places = np.full(self.cells, -1, np.int64)
        places[chosen] = np.arange(len(chosen))
        counted = self._added(cells, self._layout.counted, places, len(chosen))
        rows = [self._axes.keys_of(cell) for cell in chosen.tolist()]
        columns = dict(zip(self._layout.ranked, planes[:, 0, chosen].tolist(), strict=True))
        columns |= zip(self._layout.counted, counted.tolist(), strict=True)
        if planes.shape[1] > 1:
            before = planes[:, 1, chosen].tolist()
            columns |= {f"before_{name}": sums for name, sums in zip(self._layout.ranked, before, strict=True)}
        for name, sums in columns.items():
            for row, value in zip(rows, sums, strict=True):
                row[name] = value
        return rows

    def _cheaper(self, cells: Integers, costs: Integers, after: Sequence[Any]) -> Integers:
        """Those that come after a position in the order of costs."""
        if not after:
            return cells
        cost, *keys = after
        of_cells = costs[cells]
        cheaper: Integers = cells[(of_cells < cost) | ((of_cells == cost) & (cells >= self._axes.first_after(keys)))]
        return cheaper

    def _added(
        self, cells: Sequence[Integers], sums: Mapping[str, int], places: Integers | None, size: int
    ) -> Integers:
        """These sums of all cells; or of those that have one of `size` places (-1 for none), at their places."""
        added = np.zeros((len(sums), size), np.int64)
        slot_step = self._axes.step_of(self._layout.slot)
        for used, of_groups in zip(self._blocks, cells, strict=True):
            values = [used.packed.sums(row) for row in sums.values()]
            for sign, slot in used.uses:
                at, kept = self._kept(of_groups, slot * slot_step, places)
                for target, of_block in zip(added, values, strict=True):
                    if of_block is not None:
                        self._add(target, at, of_block if kept is None else of_block[kept], sign)
        of_slots = {number: place * slot_step for place, number in enumerate(self._layout.slots)}
        offsets = np.array([of_slots[number] for number in self._rest[self._layout.slot]], np.int64)
        at, kept = self._kept(self._axes.cells_of_rows(self._rest) + offsets, 0, places)
        for target, name in zip(added, sums, strict=True):
            of_rows = np.array(self._rest[name], np.int64)
            target[at] += of_rows if kept is None else of_rows[kept]
        return added

    def _kept(self, cells: Integers, offset: int, places: Integers | None) -> tuple[Integers, NDArray[np.bool] | None]:
        """Where groups are added to, and which of them are (None for all)."""
        kept = cells >= 0 if self._axes.filtered else None
        at = cells + offset
        if places is not None:
            at = places[at]
            kept = at >= 0 if kept is None else kept & (at >= 0)
        return (at, None) if kept is None else (at[kept], kept)

    def _add(self, target: Integers, at: Integers, values: Integers, sign: int) -> None:
        if not self._axes.distinct:
            np.add.at(target, at, sign * values.astype(np.int64))
        elif sign > 0:
            target[at] += values
        else:
            target[at] -= values
