"""How full the gateway's limits are: the figure `limit_used_share`, 0 for all of it left and 1 for nothing left.

`limit="calls"` is this process's bound of calls under way. `limit="requests"` and `limit="tokens"` are the rate limits
of a `deployment`, which replicas share through Redis; above 1 more was used than was reserved. API keys have no series:
there is no bound to their number.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from heapq import nlargest

from services.gateway.fleet import Fleet
from services.gateway.limits import RateLimits
from services.runtime import telemetry
from services.runtime.telemetry import Labels

_log = logging.getLogger(__name__)


class LimitFigures:
    """The fullest rate limits of deployments, when somebody last looked."""

    def __init__(self, limits: RateLimits, fleet: Fleet, shown_max: int) -> None:
        """`shown_max` is how many limits have a series at most."""
        self._limits = limits
        self._fleet = fleet
        self._shown_max = shown_max
        self._shares: dict[Labels, float] = {}

    def shares(self) -> dict[Labels, float]:
        """The share that is used of each limit, by its labels."""
        return self._shares

    async def look(self) -> None:
        """Read the limits anew; where that fails none is shown, rather than old ones, until the next look."""
        try:
            self._shares = await self._read()
        except Exception:  # noqa: BLE001 (any fault is logged; without the looks the figures would stand still for good)
            self._shares = {}
            _log.exception("the limits of deployments could not be read")

    async def _read(self) -> dict[Labels, float]:
        deployments = self._fleet.catalogue.all_limited()
        views = await self._limits.views(deployments)
        found = [
            (1 - view.left / view.burst, (("deployment", deployment.name), ("limit", kind)))
            for deployment, each in zip(deployments, views, strict=True)
            for kind, view in zip(("requests", "tokens"), each, strict=True)
            if view is not None
        ]
        return {labels: share for share, labels in nlargest(self._shown_max, found)}


@asynccontextmanager
async def watched_limits(figures: LimitFigures, interval_s: float) -> AsyncIterator[None]:
    """Look every `interval_s` during the context."""

    async def look() -> None:
        while True:
            await figures.look()
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(look(), name="limit-figures")
    try:
        with telemetry.gauges("limit_used_share", figures.shares):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
