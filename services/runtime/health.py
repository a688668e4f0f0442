"""Health of a server, by the standard gRPC health service.

Names: "liveness" is SERVING as long as the process answers, whatever it depends on. "readiness", "" and each service's
full name follow the readiness checks: NOT_SERVING until the first round has passed, and again while one fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

LIVENESS = "liveness"
READINESS = "readiness"

ReadinessCheck = Callable[[], Awaitable[object]]
"""Returns when the dependency works, raises when it does not."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_log = logging.getLogger(__name__)


class Health:
    """Polls readiness checks and tells the health service."""

    def __init__(
        self, services: Sequence[str], checks: Mapping[str, ReadinessCheck], *, interval_s: float, timeout_s: float
    ) -> None:
        self.servicer = HealthServicer()
        self._names = ("", READINESS, *services)
        self._checks = dict(checks)
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._failing: dict[str, str] = {}
        self._stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the first round before the body, and one every `interval_s` during it."""
        await self.servicer.set(LIVENESS, _SERVING)
        await self.check()
        poller = asyncio.create_task(self._poll(), name="health")
        try:
            yield
        finally:
            poller.cancel()
            await asyncio.gather(poller, return_exceptions=True)

    async def start(self) -> None:
        """Before any check has run, nothing is ready."""
        for name in self._names:
            await self.servicer.set(name, _NOT_SERVING)

    async def check(self) -> bool:
        """Run all checks at once and publish the result; True when all passed."""
        results = await asyncio.gather(*(self._passes(name) for name in self._checks))
        ready = all(results) and not self._stopping
        for name in self._names:
            await self.servicer.set(name, _SERVING if ready else _NOT_SERVING)
        return ready

    async def stop(self) -> None:
        """Not ready any more, for good; still alive."""
        self._stopping = True
        for name in self._names:
            await self.servicer.set(name, _NOT_SERVING)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self.check()

    async def _passes(self, name: str) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._checks[name]()
        except Exception as error:  # noqa: BLE001 (any failure of a check is the answer "not ready")
            reason = f"{type(error).__name__}: {error}"
            if self._failing.get(name) != reason:
                _log.warning("not ready: the check of %s fails: %s", name, reason)
            self._failing[name] = reason
            return False
        if self._failing.pop(name, None) is not None:
            _log.info("the check of %s passes again", name)
        return True
