"""Statistics over the wire."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llmlab.api.metrics.v1 import statistics_pb2 as pb
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceAsyncStub

Metadata = tuple[tuple[str, str], ...]


async def refusal(call: Awaitable[Any]) -> DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def test_summaries(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    request = pb.SummarizeRequest(
        series=[
            pb.Series(key="rate", kind=pb.SERIES_KIND_RATE, values=[1, 1, 0, 1], missing=1),
            pb.Series(key="mean", kind=pb.SERIES_KIND_MEAN, values=[1, 2, 6, 7], clusters=[1, 1, 2, 2]),
            pb.Series(key="p", kind=pb.SERIES_KIND_QUANTILES, values=range(50_000), quantiles=[0.5, 0.99]),
            pb.Series(key="few", kind=pb.SERIES_KIND_QUANTILES, values=[3.0], quantiles=[0.95]),
            pb.Series(key="none", kind=pb.SERIES_KIND_MEAN, missing=2, minimum=0.0, maximum=1.0),
        ]
    )
    answer = await metrics.Summarize(request, metadata=reader)
    assert [summary.key for summary in answer.summaries] == ["rate", "mean", "p", "few", "none"]
    (rate,), (mean,), (median, p99), (few,), (none,) = [summary.estimates for summary in answer.summaries]
    assert (rate.value, rate.method, rate.missing) == (0.75, "wilson", 1)
    assert (rate.low_if_missing, rate.high_if_missing) == (0.6, 0.8)
    assert (mean.value, mean.method, mean.clusters, mean.count) == (4.0, "t-clustered", 2, 4)
    assert not mean.HasField("low_if_missing")
    assert (median.quantile, median.value) == (0.5, 24_999.5)
    assert (p99.quantile, p99.method) == (0.99, "order-statistic")
    assert p99.low < p99.value < p99.high
    assert not few.HasField("value")
    assert few.withheld_reason
    assert (none.withheld_reason, none.low_if_missing, none.high_if_missing) == ("there are no numbers", 0.0, 1.0)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.SummarizeRequest(), "series"),
        (pb.SummarizeRequest(series=[pb.Series(values=[1])]), "series[0].kind"),
        (
            pb.SummarizeRequest(
                series=[
                    pb.Series(kind=pb.SERIES_KIND_MEAN),
                    pb.Series(kind=pb.SERIES_KIND_RATE, values=[0.5]),
                ]
            ),
            "series[1].values[0]",
        ),
        (
            pb.SummarizeRequest(series=[pb.Series(kind=pb.SERIES_KIND_MEAN, values=[1.0, math.nan])]),
            "series[0].values[1]",
        ),
        (
            pb.SummarizeRequest(series=[pb.Series(kind=pb.SERIES_KIND_MEAN, values=[1.0], clusters=[1, 2])]),
            "series[0].clusters",
        ),
        (
            pb.SummarizeRequest(series=[pb.Series(kind=pb.SERIES_KIND_MEAN)], confidence=0.3),
            "confidence",
        ),
        (
            pb.SummarizeRequest(series=[pb.Series(kind=pb.SERIES_KIND_QUANTILES, quantiles=[1.0])]),
            "series[0].quantiles[0]",
        ),
    ],
)
async def test_broken_series_name_the_field(
    metrics: MetricsServiceAsyncStub, reader: Metadata, request_: pb.SummarizeRequest, field: str
) -> None:
    error = await refusal(metrics.Summarize(request_, metadata=reader))
    assert (error.code, error.field) == ("INVALID_ARGUMENT", field)


async def test_comparisons(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    groups = [
        pb.ComparedGroup(key="good", values=[0.9, 0.8, 0.95, 0.7, 0.85, 0.9], units=range(6)),
        pb.ComparedGroup(key="bad", values=[0.3, 0.2, 0.5, 0.1, 0.35], units=range(5), missing_units=[5]),
    ]
    request = pb.CompareRequest(
        kind=pb.SERIES_KIND_MEAN, groups=groups, against=pb.COMPARE_AGAINST_BEST, minimum=0.0, maximum=1.0
    )
    answer = await metrics.Compare(request, metadata=reader)
    assert answer.baseline == "good"
    (bad,) = answer.comparisons
    assert (bad.first, bad.second, bad.verdict) == ("bad", "good", pb.VERDICT_SECOND_HIGHER)
    assert (bad.difference.count, bad.difference.missing, bad.losses) == (5, 1, 5)
    assert bad.difference.low < bad.difference.value < bad.difference.high < 0.0
    assert bad.difference.low_if_missing < bad.difference.high_if_missing
    assert bad.p_value == bad.adjusted_p_value < 0.05
    assert bad.detectable_difference > 0.0


async def test_rankings(metrics: MetricsServiceAsyncStub, reader: Metadata) -> None:
    request = pb.RankRequest(players=["a", "b"], first=[0] * 100, second=[1] * 100, scores=[1] * 75 + [0] * 25)
    answer = await metrics.Rank(request, metadata=reader)
    best, last = answer.standings
    assert best.rating - last.rating == pytest.approx(190.85, abs=0.005)
    assert (best.player, best.rank, best.worst_rank, best.within_noise_of_next) == ("a", 1, 1, False)
    assert (answer.games, answer.clusters, answer.separated) == (100, 100, False)
    again = await metrics.Rank(request, metadata=reader)
    assert again.SerializeToString(deterministic=True) == answer.SerializeToString(deterministic=True)


async def test_broken_comparisons_and_rankings_name_the_field(
    metrics: MetricsServiceAsyncStub, reader: Metadata
) -> None:
    empty = [pb.ComparedGroup(key=key) for key in "ab"]
    wrong_kind = pb.CompareRequest(kind=pb.SERIES_KIND_QUANTILES, groups=empty)
    unknown = pb.CompareRequest(kind=pb.SERIES_KIND_MEAN, groups=empty, against=pb.COMPARE_AGAINST_BASELINE)
    assert (await refusal(metrics.Compare(wrong_kind, metadata=reader))).field == "kind"
    assert (await refusal(metrics.Compare(unknown, metadata=reader))).field == "baseline"
    alone = pb.RankRequest(players=["a"], first=[0], second=[0], scores=[1])
    assert (await refusal(metrics.Rank(alone, metadata=reader))).field == "players"
