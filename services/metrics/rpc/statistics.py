"""Series and figures: protobuf to domain and back."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from typing import Any, Final

from llmlab.api.metrics.v1 import statistics_pb2 as pb
from services.metrics.summaries import Estimate, Series, SeriesKind

# Numbers that are copied out of a message before the loop may do something else: about a millisecond's worth.
_NUMBERS_PER_STEP: Final = 20_000

KINDS: Final = {
    pb.SERIES_KIND_MEAN: SeriesKind.MEAN,
    pb.SERIES_KIND_RATE: SeriesKind.RATE,
    pb.SERIES_KIND_QUANTILES: SeriesKind.QUANTILES,
}


async def read_series(series: pb.Series) -> Series:
    """A series, its numbers packed for a worker."""
    return Series(
        key=series.key,
        kind=KINDS[series.kind],
        values=await packed("d", series.values),
        clusters=await packed("q", series.clusters),
        missing=series.missing,
        minimum=series.minimum if series.HasField("minimum") else None,
        maximum=series.maximum if series.HasField("maximum") else None,
        quantiles=tuple(series.quantiles),
    )


async def packed(type_code: str, numbers: Sequence[float]) -> bytes:
    """The numbers as machine words, copied in steps between which the loop runs."""
    packed: array[Any] = array(type_code)
    for start in range(0, len(numbers), _NUMBERS_PER_STEP):
        if start:
            await asyncio.sleep(0)
        packed.extend(numbers[start : start + _NUMBERS_PER_STEP])
    return packed.tobytes()


def estimate_message(estimate: Estimate) -> pb.Estimate:
    """A figure on the wire."""
    interval, if_missing = estimate.interval, estimate.if_missing
    return pb.Estimate(
        value=estimate.value,
        low=interval.low,
        high=interval.high,
        method=estimate.method,
        count=estimate.count,
        clusters=estimate.clusters,
        missing=estimate.missing,
        low_if_missing=if_missing.low,
        high_if_missing=if_missing.high,
        quantile=estimate.quantile,
        withheld_reason=estimate.withheld_reason,
    )
