"""Follows the operator's catalogue file: a change is put into force without a restart, a mistake is refused.

The file is looked at every few seconds (a mounted ConfigMap changes without a signal), and at once after `now`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from services.gateway.catalogue import Catalogue
from services.gateway.catalogue_file import CatalogueError
from services.gateway.fleet import Fleet

_log = logging.getLogger(__name__)


class CatalogueWatch:
    """Reloads a fleet's catalogue when its file changes."""

    def __init__(self, fleet: Fleet, load: Callable[[], Catalogue], file: Path | None) -> None:
        """`load` reads the catalogue anew and raises CatalogueError."""
        self._fleet = fleet
        self._load = load
        self._file = file
        self._wanted = asyncio.Event()
        self._seen = self._stamp()

    def now(self) -> None:
        """Read the file again, changed or not."""
        self._wanted.set()

    @asynccontextmanager
    async def running(self, every_s: float) -> AsyncIterator[None]:
        """Watch inside."""
        task = asyncio.create_task(self._run(every_s), name="catalogue-watch")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self, every_s: float) -> None:
        while True:
            try:
                async with asyncio.timeout(every_s):
                    await self._wanted.wait()
            except TimeoutError:
                if await asyncio.to_thread(self._stamp) == self._seen:
                    continue
            self._wanted.clear()
            await self.reload()

    async def reload(self) -> bool:
        """Put what the file says into force; False, and one line in the log, where it cannot be used."""
        self._seen = await asyncio.to_thread(self._stamp)
        try:
            catalogue = await asyncio.to_thread(self._load)
            await self._fleet.replace(catalogue)
        except CatalogueError as error:
            _log.error("the catalogue was not changed: %s; the one before stays in force", error)
            return False
        except Exception:  # noqa: BLE001 (whatever it is, the catalogue before stays, and the file is followed on)
            _log.exception("the catalogue was not changed: a provider could not be opened")
            return False
        _log.info("the catalogue was read again: %d providers", len(catalogue.providers))
        return True

    def _stamp(self) -> tuple[int, int, int] | None:
        """Tells one state of the file from another; None where there is none."""
        if self._file is None:
            return None
        try:
            found = self._file.expanduser().stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
