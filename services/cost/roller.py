"""Folds usage events into the views soon after their commit, so that summaries read few of them one by one."""

import asyncio
import logging
from time import monotonic
from typing import Protocol

from services.runtime.errors import DomainError

_log = logging.getLogger(__name__)

PROJECTS_AT_ONCE_MAX = 1_000
"""Projects that one round takes on."""
SHARE_MAX = 0.25
"""The part of the time that folding may take. An event is folded the cheaper the more of them are folded at once, so
under load rounds that are further apart leave more for those who report."""


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
        """Rounds are `interval_s` apart, or further where they take long."""
        self._folder = folder
        self._interval_s = interval_s

    async def run(self) -> None:
        """Work until cancelled; a database that is away for a while is waited for."""
        while True:
            began_s = monotonic()
            try:
                await self.run_once()
            except DomainError as error:
                _log.warning("usage could not be folded into the views now: %s", error)
            except Exception:  # noqa: BLE001 (any fault is logged; without the loop summaries would become slow)
                _log.exception("usage could not be folded into the views")
            await asyncio.sleep(self.pause_s(monotonic() - began_s))

    def pause_s(self, took_s: float) -> float:
        """How long to rest after a round that took so long."""
        return max(self._interval_s, took_s * (1 / SHARE_MAX - 1))

    async def run_once(self) -> None:
        """Fold everything that was committed before, project by project."""
        for project_id in await self._folder.behind(PROJECTS_AT_ONCE_MAX):
            try:
                while await self._folder.fold(project_id):
                    pass
            except Exception:  # noqa: BLE001 (one project that cannot be folded must not keep back the others)
                _log.exception("usage of project %s could not be folded into the views", project_id)
