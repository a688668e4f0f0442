"""What statistics ask of the numbers that they are given."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from services.metrics.intervals import Clusters, Numbers
from services.runtime.errors import InvalidField

MAGNITUDE_MAX: Final = 1e100
"""The largest number, either side of 0: its square, times as many numbers as a request holds, is still one."""


def check_bounds(minimum: float | None, maximum: float | None, prefix: str = "") -> None:
    """Raises InvalidField where the lowest or highest possible number can't be one; `prefix` leads to the fields."""
    for name, bound in (("minimum", minimum), ("maximum", maximum)):
        if bound is not None and not abs(bound) <= MAGNITUDE_MAX:
            raise InvalidField(f"{prefix}{name}", f"must lie between -{MAGNITUDE_MAX:g} and {MAGNITUDE_MAX:g}")
    if minimum is not None and maximum is not None and minimum > maximum:
        raise InvalidField(f"{prefix}minimum", "must not be above maximum")


def read_numbers(
    packed: bytes, path: str, minimum: float | None = None, maximum: float | None = None, *, rate: bool = False
) -> Numbers:
    """64-bit numbers, each finite and within the bounds; only zeros and ones in a rate.

    Raises:
        InvalidField: names the first number that is not.
    """
    values = np.frombuffer(packed, dtype=np.float64)
    _refuse(~np.isfinite(values), path, "must be a finite number; count what is absent as missing")
    _refuse(np.abs(values) > MAGNITUDE_MAX, path, f"must lie between -{MAGNITUDE_MAX:g} and {MAGNITUDE_MAX:g}")
    if rate:
        _refuse((values != 0.0) & (values != 1.0), path, "must be 0 or 1 in a rate")
    low = -math.inf if minimum is None else minimum
    high = math.inf if maximum is None else maximum
    _refuse((values < low) | (values > high), path, "must lie between minimum and maximum")
    return values


def read_clusters(packed: bytes, count: int, path: str) -> Clusters:
    """As many 64-bit whole numbers as there are values. Raises InvalidField."""
    clusters = np.frombuffer(packed, dtype=np.int64)
    if len(clusters) != count:
        raise InvalidField(path, f"must be as many as values ({count}) or none, not {len(clusters)}")
    return clusters


def _refuse(wrong: npt.NDArray[np.bool_], path: str, message: str) -> None:
    if wrong.any():
        raise InvalidField(f"{path}[{int(np.argmax(wrong))}]", message)
