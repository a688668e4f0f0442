"""The bounded hand-over between a call and the reader of its stream."""

from __future__ import annotations

import asyncio

from services.gateway.handoff import Handoff


async def test_a_slow_reader_gets_everything_at_once_and_in_order() -> None:
    handoff: Handoff[int] = Handoff(10)
    await handoff.put(1)
    await handoff.put(2, 7)
    assert handoff.offer(3)
    assert await handoff.take() == [1, 2, 3]
    await handoff.put(4)
    handoff.end()
    assert await handoff.take() == [4]
    assert await handoff.take() == []


async def test_a_full_handoff_makes_the_writer_wait() -> None:
    handoff: Handoff[int] = Handoff(2)
    await handoff.put(1, 2)
    writer = asyncio.create_task(handoff.put(3))
    assert not handoff.offer(3)
    await asyncio.sleep(0)
    assert not writer.done()
    assert await handoff.take() == [1]
    await writer
    assert await handoff.take() == [3]
