"""Removes alerts and their deliveries that are older than they are kept."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from services.runtime.errors import DomainError

_PAUSE_S = 3_600.0
"""Between two rounds; age is counted in days."""

_log = logging.getLogger(__name__)


async def prune_alerts(prune: Callable[[int], Awaitable[int]], age_us: int) -> None:
    """Work until cancelled. `prune` removes some of what is older than an age, and returns how much it removed."""
    while True:
        removed = 0
        try:
            removed = await prune(age_us)
        except DomainError as error:
            _log.warning("old alerts could not be removed now: %s", error)
        except Exception:  # noqa: BLE001 (any fault is logged; without the loop alerts would pile up)
            _log.exception("old alerts could not be removed")
        # Other writers come between two portions of a backlog.
        await asyncio.sleep(0 if removed else _PAUSE_S)
