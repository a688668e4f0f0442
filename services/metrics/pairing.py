"""Groups of numbers by unit: what two groups have in common, and what is missing.

A unit is what both groups were asked: a prompt. Repeats of it within a group are averaged first, so that units are
independent of each other.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.metrics.checks import read_clusters, read_numbers
from services.metrics.intervals import UNKNOWN, Clusters, Interval, Numbers


@dataclass(frozen=True, slots=True)
class Group:
    """One group's numbers. Plain bytes carry them, so that they cross into a worker process as they are."""

    key: str
    values: bytes
    """64-bit floating-point numbers."""
    units: bytes
    """64-bit whole numbers: to which unit each value belongs."""
    missing_units: bytes = b""
    """64-bit whole numbers: the units of the values that should have been there."""


class Units(NamedTuple):
    """A group by unit, in order: the sum of its values, how many they are, and how many are missing."""

    keys: Clusters
    sums: Numbers
    counts: Clusters
    missing: Clusters


class Pairs(NamedTuple):
    """Two groups at the units that both have values for."""

    first: Numbers
    second: Numbers
    single: bool
    """Whether no value is a mean of repeats."""
    missing: int
    if_missing: Interval


def read_units(
    group: Group, path: str, minimum: float | None = None, maximum: float | None = None, *, rate: bool = False
) -> Units:
    """A group by unit. Raises InvalidField; `path` is the group's place in the request."""
    values = read_numbers(group.values, f"{path}.values", minimum, maximum, rate=rate)
    units = read_clusters(group.units, len(values), f"{path}.units")
    missing = np.frombuffer(group.missing_units, dtype=np.int64)
    keys, places = np.unique(np.concatenate([units, missing]), return_inverse=True)
    present, absent = places[: len(units)], places[len(units) :]
    return Units(
        keys,
        np.bincount(present, weights=values, minlength=len(keys)).astype(np.float64),
        np.bincount(present, minlength=len(keys)),
        np.bincount(absent, minlength=len(keys)),
    )


def pair_up(first: Units, second: Units, low: float | None, high: float | None) -> Pairs:
    """Two groups at the units that they share; `low` and `high` bound what is missing elsewhere."""
    keys = _union(first.keys, second.keys)
    a, b = _spread_over(keys, first), _spread_over(keys, second)
    both = (a.counts > 0) & (b.counts > 0)
    missing = int(a.missing.sum() + b.missing.sum())
    return Pairs(
        a.sums[both] / a.counts[both],
        b.sums[both] / b.counts[both],
        bool(((a.counts[both] == 1) & (b.counts[both] == 1)).all()),
        missing,
        _if_missing(a, b, low, high) if missing or not both.all() else UNKNOWN,
    )


def _union(first: Clusters, second: Clusters) -> Clusters:
    """The keys of two groups in order; mostly both have the same."""
    if np.array_equal(first, second):
        return first
    keys: Clusters = np.concatenate([first, second])
    keys.sort(kind="stable")  # two ordered runs, which it merges
    differs: npt.NDArray[np.bool_] = np.concatenate([[True], keys[1:] != keys[:-1]])
    return keys[differs]


def _spread_over(keys: Clusters, group: Units) -> Units:
    """The group with a place for every key."""
    if len(keys) == len(group.keys):
        return group
    places = np.searchsorted(keys, group.keys)
    sums, counts, missing = np.zeros(len(keys)), np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    sums[places], counts[places], missing[places] = group.sums, group.counts, group.missing
    return Units(keys, sums, counts, missing)


def _if_missing(a: Units, b: Units, low: float | None, high: float | None) -> Interval:
    """The mean difference over all units, with everything missing at its worst and at its best.

    A unit that a group knows nothing of counts as one missing value.
    """
    if low is None or high is None:
        return UNKNOWN

    def mean(group: Units, bound: float) -> float:
        missing = np.where(group.counts + group.missing == 0, 1, group.missing)
        return math.fsum(((group.sums + missing * bound) / (group.counts + missing)).tolist()) / len(group.keys)

    return Interval(mean(a, low) - mean(b, high), mean(a, high) - mean(b, low))
