"""Follows the operator's catalogue file and the files of provider keys.

A change is put into force without a restart, a mistake is refused. They are looked at every few seconds (a mounted
ConfigMap changes without a signal), and at once after `now`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from services.gateway.catalogue import Catalogue
from services.gateway.catalogue_file import CatalogueError
from services.gateway.fleet import Fleet

_log = logging.getLogger(__name__)


class CatalogueWatch:
    """Reloads a fleet's catalogue when its file or a key changes."""

    def __init__(
        self, fleet: Fleet, load: Callable[[], Catalogue], file: Path | None, environ: Mapping[str, str] | None = None
    ) -> None:
        """`load` reads the catalogue anew and raises CatalogueError; `environ` names the files of keys."""
        self._fleet = fleet
        self._load = load
        self._file = file
        self._environ = environ or {}
        self._wanted = asyncio.Event()
        self._seen = self._stamp()
        self._keys_tried: list[str] = []

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
                if not await asyncio.to_thread(self._changed):
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

    def _changed(self) -> bool:
        """Whether there is anything to be put into force; keys that could not be used are tried once."""
        in_force, now = self._fleet.catalogue.keys_in_files(self._environ)
        keys_changed = now not in (in_force, self._keys_tried)
        self._keys_tried = now
        return keys_changed or self._stamp() != self._seen

    def _stamp(self) -> tuple[int, int, int] | None:
        """Tells one state of the file from another; None where there is none."""
        if self._file is None:
            return None
        try:
            found = self._file.expanduser().stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
