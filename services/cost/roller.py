"""Folds usage events into the views soon after their commit, so that summaries read few of them one by one."""

import asyncio
import logging
from typing import Protocol

from services.runtime.errors import DomainError

_log = logging.getLogger(__name__)

PROJECTS_AT_ONCE_MAX = 1_000
"""Projects that one round takes on."""


class Folding(Protocol):
    """Where the views are kept."""

    async def behind(self, limit: int) -> list[str]:
        """At most `limit` projects with events that are not folded yet."""
        ...

    async def fold(self, project_id: str) -> int:
        """Fold the next events of a project; returns how many. 0 where there are none, or somebody else is at it."""
        ...


class Roller:
    """A loop that folds. Several replicas may run it: one at a time has a project."""

    def __init__(self, folder: Folding, *, interval_s: float) -> None:
        self._folder = folder
        self._interval_s = interval_s

    async def run(self) -> None:
        """Work until cancelled; a database that is away for a while is waited for."""
        while True:
            try:
                await self.run_once()
            except DomainError as error:
                _log.warning("usage could not be folded into the views now: %s", error)
            except Exception:  # noqa: BLE001 (any fault is logged; without the loop summaries would become slow)
                _log.exception("usage could not be folded into the views")
            await asyncio.sleep(self._interval_s)

    async def run_once(self) -> None:
        """Fold everything that was committed before, project by project."""
        for project_id in await self._folder.behind(PROJECTS_AT_ONCE_MAX):
            while await self._folder.fold(project_id):
                pass
