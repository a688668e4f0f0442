"""Retry-After over real sockets: no attempt comes before its time, however long a provider asks to wait."""

from __future__ import annotations

import itertools
import time

import pytest

from services.gateway.attempts import Completion, FailedCall
from tests.support.gateway import OWNER, InMemoryLedger, call, pipeline
from tests.support.provider_kinds import KINDS, provider_of
from tests.support.provider_streams import SSE, STREAMS
from tests.support.replay import Asked, Reply, replay_server

WAITS_S = ("0.05", "0.1", "0.2")


def refused(header: str, seconds: str) -> Reply:
    value = str(round(float(seconds) * 1_000)) if header.endswith("ms") else seconds
    return Reply(429, {header: value}, (b'{"error": {"message": "Slow down"}}',))


@pytest.mark.parametrize("header", ["Retry-After", "retry-after-ms"])
@pytest.mark.parametrize("kind", KINDS)
async def test_no_attempt_is_early_over_escalating_waits(kind: str, header: str) -> None:
    arrived: list[float] = []

    def answer(_: Asked) -> Reply:
        arrived.append(time.monotonic())
        if len(arrived) <= len(WAITS_S):
            return refused(header, WAITS_S[len(arrived) - 1])
        return Reply(headers=SSE, pieces=tuple(STREAMS[kind]))

    async with replay_server(answer) as server:
        provider = provider_of(kind, server.base_url)
        pipe, _ = pipeline(provider, InMemoryLedger())
        outcome = await pipe.run(call(retries_max=3), OWNER)
        await provider.close()
    assert isinstance(outcome, Completion)
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    early = [gap for gap, asked in zip(gaps, WAITS_S, strict=True) if gap < float(asked)]
    assert early == []
    assert len(outcome.attempts) == 4


async def test_a_wait_beyond_the_deadline_ends_the_call_at_once_and_is_told() -> None:
    async with replay_server(lambda _: refused("Retry-After", "3600")) as server:
        provider = provider_of("openai", server.base_url)
        pipe, _ = pipeline(provider, InMemoryLedger())
        outcome = await pipe.run(call(retries_max=3), OWNER)
        await provider.close()
    assert isinstance(outcome, FailedCall)
    assert (outcome.failure.reason, outcome.failure.retry_after_ms) == ("RATE_LIMITED", 3_600_000)
    assert len(server.asked) == 1
