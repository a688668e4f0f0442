"""Alerts over a real server: listed, and watched from any sequence on."""

import asyncio

import grpc
import pytest

from llmlab.api.cost.v1 import alert_pb2 as pb
from services.cost.settings import CostSettings
from services.cost.wiring import build
from services.runtime.clock import ManualClock
from services.runtime.errors import DomainError
from services.runtime.status import error_from_rpc
from tests.support.cost import Callers, raise_alert


@pytest.fixture
def settings(settings: CostSettings) -> CostSettings:
    quick = {"watch_flush_ms": 1, "watch_poll_ms": 20, "watch_page_events": 3, "watch_heartbeat_ms": 100}
    return settings.model_copy(update=quick)


async def watched(callers: Callers, after: int, count: int) -> list[str]:
    """The models of the next alerts; the stream is cut then."""
    call = callers.alerts.WatchAlerts(
        pb.WatchAlertsRequest(after_sequence=after), metadata=callers.person(), timeout=60
    )
    seen: list[str] = []
    async for message in call:
        for alert in message.alerts:
            assert alert.sequence == after + len(seen) + 1
            seen.append(alert.unpriced.model)
        if len(seen) >= count:
            break
    call.cancel()
    return seen[:count]


async def refused_watch(callers: Callers, after: int, *permissions: str) -> DomainError:
    call = callers.alerts.WatchAlerts(
        pb.WatchAlertsRequest(after_sequence=after), metadata=callers.person("prj_1", *permissions), timeout=30
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [message async for message in call]
    return error_from_rpc(caught.value)


async def test_a_watcher_that_is_cut_at_any_sequence_misses_and_repeats_nothing(callers: Callers) -> None:
    models = [f"model-{number}" for number in range(8)]
    live = asyncio.create_task(watched(callers, 0, len(models)))
    for model in models:
        await raise_alert(callers, model)
        await raise_alert(callers, model, project_id="prj_2")
    names = [f"openai/{model}" for model in models]
    assert await live == names
    for cut in range(len(models)):
        assert await watched(callers, 0, cut) + await watched(callers, cut, len(models) - cut) == names


async def test_a_watcher_resumes_on_another_replica(
    callers: Callers, settings: CostSettings, clock: ManualClock
) -> None:
    await raise_alert(callers, "model-0")
    async with build(settings, clock=clock) as other, grpc.aio.insecure_channel(other.address) as channel:
        replica = Callers(channel)
        assert await watched(callers, 0, 1) == ["openai/model-0"]
        following = asyncio.create_task(watched(replica, 1, 2))
        await raise_alert(callers, "model-1")
        await raise_alert(replica, "model-2")
        assert await following == ["openai/model-1", "openai/model-2"]


async def test_silence_is_broken_by_heartbeats_with_the_latest_sequence(callers: Callers) -> None:
    await raise_alert(callers, "model-0")
    call = callers.alerts.WatchAlerts(pb.WatchAlertsRequest(after_sequence=1), metadata=callers.person(), timeout=30)
    heartbeat = await anext(aiter(call))
    assert (list(heartbeat.alerts), heartbeat.latest_sequence) == ([], 1)
    call.cancel()


async def test_watches_that_cannot_be(callers: Callers) -> None:
    await raise_alert(callers, "model-0")
    ahead = await refused_watch(callers, 2)
    assert (ahead.code, ahead.reason) == ("OUT_OF_RANGE", "SEQUENCE_OUT_OF_RANGE")
    assert ahead.metadata["latest_sequence"] == "1"
    assert (await refused_watch(callers, 0, "WRITE")).reason == "PERMISSION_DENIED"
    assert (await refused_watch(callers, -1)).reason == "INVALID_FIELD"


async def test_alerts_are_listed_newest_first_in_pages(callers: Callers) -> None:
    for number in range(3):
        await raise_alert(callers, f"model-{number}")
    request = pb.ListAlertsRequest(page_size=2, kinds=[pb.ALERT_KIND_UNPRICED_MODEL])
    first = await callers.alerts.ListAlerts(request, metadata=callers.person())
    request.page_token = first.next_page_token
    second = await callers.alerts.ListAlerts(request, metadata=callers.person())
    assert [alert.sequence for alert in [*first.alerts, *second.alerts]] == [3, 2, 1]
    assert (second.next_page_token, first.alerts[0].unpriced.day) == ("", "2026-11-18")
    request.kinds[:] = [pb.ALERT_KIND_ANOMALY]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await callers.alerts.ListAlerts(request, metadata=callers.person())
    assert error_from_rpc(caught.value).reason == "INVALID_PAGE_TOKEN"
    foreign = await callers.alerts.ListAlerts(pb.ListAlertsRequest(), metadata=callers.person("prj_2"))
    assert list(foreign.alerts) == []
