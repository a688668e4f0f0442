from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import numpy as np
import pytest

from services.metrics.statistics import Statistics
from services.metrics.summaries import Series, SeriesKind
from services.runtime.errors import InvalidField

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class InPlace:
    """Does the work at once."""

    parallel = 1

    async def run(self, fn: Callable[[*Ts], R], *args: *Ts) -> R:
        return fn(*args)


async def test_summaries() -> None:
    series = Series("k", SeriesKind.MEAN, np.array([1.0, 2.0, 3.0]).tobytes())
    statistics = Statistics(InPlace())
    (default,), (wide,) = await statistics.summarize([series], 0.0), await statistics.summarize([series], 0.99)
    assert default[0].value == wide[0].value == 2.0
    assert default == (await statistics.summarize([series], 0.95))[0]
    assert wide[0].interval.low < default[0].interval.low  # type: ignore[operator]


@pytest.mark.parametrize("confidence", [0.1, 0.4999])
async def test_confidence_is_checked(confidence: float) -> None:
    with pytest.raises(InvalidField) as caught:
        await Statistics(InPlace()).summarize([], confidence)
    assert caught.value.field == "confidence"
