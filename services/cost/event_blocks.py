"""Makes the blocks of a bucket of the usage events in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from services.cost.blocks import SEPARATOR, Block, Coded, Integers, block_of, coded, parts_of_columns
from services.cost.rollups import PACKED_COLUMNS, PACKED_VIEWS, TAG, View


def blocks_of(rows: Sequence[Sequence[Any]], cost: int) -> dict[str, Block]:
    """The block of each packed view, by its name, of at least one event; `cost` is the place of the cost in the sums.

    A row begins with the PACKED_COLUMNS; what is summed follows.
    Blocks with a tag sum one thing more, at the end: the share of the cost that each tag of an event has.
    """
    columns = [*zip(*rows, strict=True)]
    sums = np.array(columns[len(PACKED_COLUMNS) :], np.int64)
    values = dict(zip(PACKED_COLUMNS, columns, strict=False))
    of_tags = _Tags(values["tags"])
    found: dict[str, Coded] = {}

    def part(columns: tuple[str, ...]) -> Coded:
        name = SEPARATOR.join(columns)
        if name not in found:
            found[name] = coded(list(map(SEPARATOR.join, zip(*[values[column] for column in columns], strict=True))))
        return found[name]

    counts = np.maximum(np.array(values["tag_count"], np.int64), 1)
    tagged = of_tags.sums(sums, counts, cost)
    return {view.name: _block(view, part, sums, of_tags, tagged) for view in PACKED_VIEWS}


def _block(view: View, part: Any, sums: Integers, of_tags: "_Tags", tagged: Integers) -> Block:
    parts = parts_of_columns(view.columns)
    if TAG not in view.columns:
        return block_of([part(columns) for columns in parts], sums)
    return block_of([of_tags.tags if columns == (TAG,) else of_tags.spread(part(columns)) for columns in parts], tagged)


class _Tags:
    """Each event once for each of its tags, or once for the empty one."""

    def __init__(self, sets: Sequence[str]) -> None:
        """`sets` are the events' tags as they are on record, JSON objects."""
        distinct = coded(sets)
        entries = [
            [f"{name}={value}" for name, value in sorted(orjson.loads(one).items())] or [""] for one in distinct.names
        ]
        sizes = np.array([len(one) for one in entries], np.int64)
        every = coded([entry for one in entries for entry in one])
        starts = np.cumsum(sizes) - sizes
        of_events = sizes[distinct.codes]
        self._events = np.repeat(np.arange(len(sets)), of_events)
        self._places = np.arange(len(self._events)) - np.repeat(np.cumsum(of_events) - of_events, of_events)
        self.tags = Coded(every.names, every.codes[starts[distinct.codes[self._events]] + self._places])

    def spread(self, part: Coded) -> Coded:
        """What the events have, for each of their tags."""
        return Coded(part.names, part.codes[self._events])

    def sums(self, sums: Integers, counts: Integers, cost: int) -> Integers:
        """Their sums, with the share of the cost: an equal part, and to the first tag what is left of the division."""
        costs = sums[cost]
        # Towards zero, as the databases divide: what a repricing takes back is negative.
        shares = np.sign(costs) * (np.abs(costs) // counts)
        rests = costs - shares * counts
        split = shares[self._events] + np.where(self._places == 0, rests[self._events], 0)
        return np.concatenate([sums[:, self._events], split[np.newaxis]])
