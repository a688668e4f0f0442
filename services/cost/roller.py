"""Folds usage events into the views soon after their commit, so that summaries read few of them one by one.

In between it packs hours that are over into blocks, so that summaries of many groups read few rows one by one.
"""

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


class Packing(Protocol):
    """Where the blocks are kept."""

    async def unpacked(self, limit: int) -> list[str]:
        """At most `limit` projects with hours to pack."""
        ...

    async def pack(self, project_id: str) -> int:
        """Pack the next hours of a project; returns how many. 0 where there are none, or somebody else is at it."""
        ...


class Roller:
    """A loop that folds. Several replicas may run it: one at a time has a project."""

    def __init__(self, folder: Folding, packer: Packing, *, interval_s: float) -> None:
        """Rounds are `interval_s` apart, or further where they take long."""
        self._folder = folder
        self._packer = packer
        self._interval_s = interval_s

    async def run(self) -> None:
        """Work until cancelled; a database that is away for a while is waited for."""
        pause_s = 0.0
        while True:
            began_s = monotonic()
            try:
                most = await self.run_once()
                pause_s = self.pause_s(pause_s, monotonic() - began_s, most)
                await self._pack_for(pause_s)
            except DomainError as error:
                _log.warning("usage could not be folded into the views now: %s", error)
                await asyncio.sleep(self._interval_s)
            except Exception:  # noqa: BLE001 (any fault is logged; without the loop summaries would become slow)
                _log.exception("usage could not be folded into the views")
                await asyncio.sleep(self._interval_s)

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

    async def _pack_for(self, pause_s: float) -> None:
        """Pack hours while there are any, some at a time, until the next round."""
        until_s = monotonic() + pause_s
        while monotonic() < until_s and await self.pack_once():
            pass
        await asyncio.sleep(max(0.0, until_s - monotonic()))

    async def pack_once(self) -> int:
        """Pack the next hours of each project; returns how many."""
        hours = 0
        for project_id in await self._packer.unpacked(PROJECTS_AT_ONCE_MAX):
            try:
                hours += await self._packer.pack(project_id)
            except Exception:  # noqa: BLE001 (one project that cannot be packed must not keep back the others)
                _log.exception("usage of project %s could not be packed into blocks", project_id)
        return hours
