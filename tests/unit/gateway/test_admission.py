"""Which calls may begin, and cancelling by id."""

from __future__ import annotations

import asyncio

import pytest

from services.gateway.admission import ActiveCall, Admission
from services.gateway.calls import Owner
from services.gateway.failures import CallFailed
from tests.support.gateway import OWNER, call


def test_the_bound_is_refused_and_freed() -> None:
    admission = Admission(max_calls=1)
    with admission.admitted(OWNER, call(call_id="a")):
        with pytest.raises(CallFailed, match="OVERLOADED") as refusal, admission.admitted(OWNER, call(call_id="b")):
            pass
        assert not refusal.value.failure.dispatched
        assert refusal.value.failure.retry_after_ms > 0
    with admission.admitted(OWNER, call(call_id="b")):
        pass


def test_an_id_is_under_way_once_in_a_project() -> None:
    admission = Admission(max_calls=10)
    with admission.admitted(OWNER, call(call_id="a")):
        with pytest.raises(CallFailed, match="CALL_ALREADY_DISPATCHED"), admission.admitted(OWNER, call(call_id="a")):
            pass
        with admission.admitted(Owner("another project"), call(call_id="a")):
            pass


async def _wait_inside_the_limit(active: ActiveCall) -> None:
    async with asyncio.timeout(60) as limit:
        active.limit = limit
        await asyncio.Event().wait()


async def test_cancel_reaches_the_projects_own_calls_only() -> None:
    admission = Admission(max_calls=10)
    with admission.admitted(OWNER, call(call_id="a")) as active:
        assert admission.cancel(Owner("another project"), ["a"]) == []
        waiting = asyncio.create_task(_wait_inside_the_limit(active))
        await asyncio.sleep(0)
        assert admission.cancel(OWNER, ["unknown", "a", "a"]) == ["a"]
        with pytest.raises(TimeoutError):
            await waiting
        assert active.cancelled
        # Once more, while the first time is still being settled.
        assert admission.cancel(OWNER, ["a"]) == ["a"]
    assert admission.cancel(OWNER, ["a"]) == []
