"""How full limits are, as figures."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.gateway.catalogue import ConfiguredProvider, load_catalogue
from services.gateway.fleet import Fleet, Generation
from services.gateway.limit_figures import LimitFigures, watched_limits
from services.gateway.limits import LocalLimits, RateLimits, Take
from services.gateway.providers.port import Provider
from services.runtime import telemetry
from services.runtime.clock import ManualClock
from tests.support.gateway import ScriptedProvider

CATALOGUE = """
providers:
  - name: a
    kind: openai
    models: [{name: both, requests_per_minute: 60, tokens_per_minute: 6000, burst_s: 10}, {name: free}]
  - {name: b, kind: openai, models: [{name: few, requests_per_minute: 60, burst_s: 4}]}
  - {name: c, kind: openai, api_key_variable: NOT_THERE, models: [{name: away, requests_per_minute: 1}]}
"""


async def opened(_: ConfiguredProvider) -> Provider:
    return ScriptedProvider()


class Faulty(LocalLimits):
    """Limits that cannot be read while `broken`."""

    broken = False

    async def full_in_us(self, takes: tuple[Take, ...]) -> list[float]:
        if self.broken:
            raise ValueError("no number")
        return await super().full_in_us(takes)


async def test_after_a_look_that_failed_nothing_old_is_told_and_the_next_one_tells_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "catalogue.yaml"
    file.write_text(CATALOGUE)
    store = Faulty(ManualClock())
    figures = LimitFigures(RateLimits(store, ManualClock()), Fleet(opened, Generation(load_catalogue({}, file), {})), 9)
    for store.broken in (False, True, False):
        await figures.look()
        assert bool(figures.shares()) is not store.broken
    assert caplog.text.count("could not be read") == 1


async def test_the_fullest_limits_are_told_while_somebody_watches(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.yaml"
    file.write_text(CATALOGUE)
    fleet = Fleet(opened, Generation(load_catalogue({}, file), {}))
    store = LocalLimits(ManualClock())
    figures = LimitFigures(RateLimits(store, ManualClock()), fleet, shown_max=2)
    await store.take((Take.of("deployment:a/both:rpm", 60, 10, 5), Take.of("deployment:b/few:rpm", 60, 4, 1)))
    store.correct((Take.of("deployment:a/both:tpm", 6_000, 10, 1_000)._replace(amount=1_500),))
    async with watched_limits(figures, interval_s=3_600):
        await asyncio.sleep(0)  # the first look needs nobody else
        assert {name: value for name, value in telemetry.snapshot().items() if "deployment=" in name} == {
            "limit_used_share{deployment=a/both,limit=tokens}": 1.5,
            "limit_used_share{deployment=a/both,limit=requests}": 0.5,
        }
    assert not [name for name in telemetry.snapshot() if "deployment=" in name]
