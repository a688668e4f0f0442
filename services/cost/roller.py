"""Folds usage events into the views soon after their commit, so that summaries read few of them one by one."""

import asyncio
import logging
from time import monotonic
from typing import Protocol

from services.cost.rollups import TAIL_EVENTS_MAX
from services.runtime.errors import DomainError

_log = logging.getLogger(__name__)

PROJECTS_AT_ONCE_MAX = 1_000
"""Projects that one round takes on."""
SHARE_MAX = 0.25
"""The part of the time that folding may take. An event is folded the cheaper the more of them are folded at once, so
under load rounds that are further apart leave more for those who report."""


TAIL_WANTED = TAIL_EVENTS_MAX // 2
"""Events of a project that a round should find at most, where they come so fast that the next one has to be earlier."""


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
        pause_s = 0.0
        while True:
            began_s = monotonic()
            most = 0
            try:
                most = await self.run_once()
            except DomainError as error:
                _log.warning("usage could not be folded into the views now: %s", error)
            except Exception:  # noqa: BLE001 (any fault is logged; without the loop summaries would become slow)
                _log.exception("usage could not be folded into the views")
            pause_s = self.pause_s(pause_s, monotonic() - began_s, most)
            await asyncio.sleep(pause_s)

    def pause_s(self, before_s: float, took_s: float, most: int) -> float:
        """How long to rest after a round that took so long, `before_s` after the one before it.

        `most` is what it has folded of one project: events that have come since the round before began.
        """
        pause_s = max(self._interval_s, took_s * (1 / SHARE_MAX - 1))
        return min(pause_s, (before_s + took_s) * TAIL_WANTED / most) if most > TAIL_WANTED else pause_s

    async def run_once(self) -> int:
        """Fold everything that was committed before, project by project; returns the most that was folded of one."""
        most = 0
        for project_id in await self._folder.behind(PROJECTS_AT_ONCE_MAX):
            folded = 0
            try:
                while count := await self._folder.fold(project_id):
                    folded += count
            except Exception:  # noqa: BLE001 (one project that cannot be folded must not keep back the others)
                _log.exception("usage of project %s could not be folded into the views", project_id)
            most = max(most, folded)
        return most
