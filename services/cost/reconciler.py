"""Work that is done again and again beside the requests: holds expire, and old ones are deleted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from services.cost.bookkeeping import Bookkeeping
from services.cost.holds import ExpiryPolicy
from services.runtime import telemetry
from services.runtime.errors import DomainError

_log = logging.getLogger(__name__)


class Reconciler:
    """Expires holds that nobody settled in time, so that no money stays reserved for ever.

    Several replicas may run it: a hold expires once.
    """

    def __init__(self, books: Bookkeeping, *, policy: ExpiryPolicy) -> None:
        self._books = books
        self._policy = policy
        self._expired = telemetry.counter("holds_expired", policy=policy.value)
        self._resting: Collection[str] = ()

    async def run_once(self, limit: int) -> int:
        """Expire at most `limit` holds; returns how many were.

        A project whose holds could not be expired is left out the next time: its holds are the oldest, and would fill
        every look.
        """
        expired, self._resting = await self._books.expire(self._policy, limit, self._resting)
        if expired:
            self._expired.add(expired)
            _log.info("%d holds expired without a settlement; policy: %s", expired, self._policy.value)
        return expired


async def repeat(work: Callable[[int], Awaitable[int]], *, interval_s: float, max_batch: int, name: str) -> None:
    """Do the work, in batches of at most `max_batch`, until cancelled; rest for `interval_s` when little is left.

    `work` says how much it has done. A database that is away for a while is waited for.
    """
    while True:
        try:
            done = await work(max_batch)
        except DomainError as error:
            _log.warning("%s could not be done now: %s", name, error)
            done = 0
        except Exception:  # noqa: BLE001 (any fault is logged; without the loop money would stay reserved)
            _log.exception("%s could not be done", name)
            done = 0
        if done < max_batch:
            await asyncio.sleep(interval_s)
