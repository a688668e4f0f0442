"""Tasks of one request, a few at a time."""

import asyncio

import pytest

from services.metrics.portions import run_portions


async def test_a_few_at_a_time_and_in_order() -> None:
    running, most = 0, 0

    async def run(portion: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return portion * 10

    assert await run_portions(run, range(7), 2) == [0, 10, 20, 30, 40, 50, 60]
    assert most == 2


async def test_the_first_that_fails_ends_the_others() -> None:
    begun, ended = [], []

    async def run(portion: int) -> None:
        begun.append(portion)
        try:
            if portion == 1:
                raise ValueError("broken")
            await asyncio.Event().wait()
        finally:
            ended.append(portion)

    with pytest.raises(ValueError, match="broken"):
        await run_portions(run, range(5), 2)
    await asyncio.sleep(0)
    assert 4 not in begun
    assert sorted(ended) == sorted(begun)
