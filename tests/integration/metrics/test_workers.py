"""The same answers from worker processes as from a thread, errors included."""

from __future__ import annotations

import grpc
import pytest

from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.api.metrics.v1 import statistics_pb2 as stats
from llmlab.api.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from services.metrics.settings import MetricsSettings
from services.metrics.wiring import build
from services.runtime.channel import open_channel
from services.runtime.status import error_from_rpc

Metadata = tuple[tuple[str, str], ...]

SAMPLES = [
    pb.Sample(sample_id=str(n), prompt="Say it.", answer="Said it. " * n, finish_reason="STOP") for n in range(9)
]
SERIES = [
    stats.Series(key="mean", kind=stats.SERIES_KIND_MEAN, values=[1.0, 2.5, 4.0], missing=1, minimum=0.0),
    stats.Series(key="p", kind=stats.SERIES_KIND_QUANTILES, values=range(500), quantiles=[0.5, 0.99]),
]


async def answers(settings: MetricsSettings, reader: Metadata) -> tuple[bytes, bytes, str]:
    async with build(settings) as server, open_channel(server.address, settings) as channel:
        metrics = MetricsServiceStub(channel)
        scored = await metrics.ScoreBatch(pb.ScoreBatchRequest(samples=SAMPLES), metadata=reader)
        summed = await metrics.Summarize(stats.SummarizeRequest(series=SERIES), metadata=reader)
        broken = stats.Series(kind=stats.SERIES_KIND_RATE, values=[2.0])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await metrics.Summarize(stats.SummarizeRequest(series=[broken]), metadata=reader)
        return scored.SerializeToString(), summed.SerializeToString(), error_from_rpc(caught.value).field


async def test_processes_and_thread_give_the_same_bytes(settings: MetricsSettings, reader: Metadata) -> None:
    in_thread = await answers(settings, reader)
    in_processes = await answers(settings.model_copy(update={"workers": 2}), reader)
    assert in_thread == in_processes
    assert in_thread[2] == "series[0].values[0]"
