"""Expires holds that nobody settled in time, so that no money stays reserved for ever."""

import asyncio
import logging

from services.cost.bookkeeping import Bookkeeping
from services.cost.holds import ExpiryPolicy
from services.runtime import telemetry
from services.runtime.errors import DomainError

_log = logging.getLogger(__name__)


class Reconciler:
    """A loop that looks for expired holds. Several replicas may run it: a hold expires once."""

    def __init__(self, books: Bookkeeping, *, policy: ExpiryPolicy, interval_s: float, max_batch: int) -> None:
        self._books = books
        self._policy = policy
        self._interval_s = interval_s
        self._max_batch = max_batch
        self._expired = telemetry.counter("holds_expired", policy=policy.value)

    async def run(self) -> None:
        """Work until cancelled; a database that is away for a while is waited for."""
        while True:
            try:
                expired = await self.run_once()
            except DomainError as error:
                _log.warning("expired holds could not be reconciled now: %s", error)
                expired = 0
            except Exception:  # noqa: BLE001 (any fault is logged; without the loop money would stay reserved)
                _log.exception("expired holds could not be reconciled")
                expired = 0
            if expired < self._max_batch:
                await asyncio.sleep(self._interval_s)

    async def run_once(self) -> int:
        """Expire one batch; returns its size."""
        expired = await self._books.expire(self._policy, self._max_batch)
        if expired:
            self._expired.add(expired)
            _log.info("%d holds expired without a settlement; policy: %s", expired, self._policy.value)
        return expired
