"""Late bills in a SQLite file of this machine, made when the first one comes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from services.gateway.late_bills import JournalFull

T = TypeVar("T")

_TABLE = """
CREATE TABLE IF NOT EXISTS late_bills (
    number INTEGER PRIMARY KEY, attempt_id TEXT NOT NULL UNIQUE, bill BLOB NOT NULL
)
"""
_INSERT = """
INSERT INTO late_bills (attempt_id, bill)
SELECT ?, ? WHERE (SELECT count(*) FROM late_bills) < ? ON CONFLICT (attempt_id) DO NOTHING
"""


class BillJournal:
    """See late_bills.Journal. Several processes may share the file: a bill that two of them send is taken once."""

    def __init__(self, file: Path, max_bills: int) -> None:
        self._file = file
        self._max_bills = max_bills

    async def add(self, attempt_id: str, bill: bytes) -> None:
        """See Journal.add."""

        def insert(connection: sqlite3.Connection) -> int:
            return connection.execute(_INSERT, (attempt_id, bill, self._max_bills)).rowcount

        if not await asyncio.to_thread(self._transact, insert):
            raise JournalFull(f"{self._max_bills} bills wait for the cost service, which is the limit")

    async def oldest(self, limit: int) -> Sequence[tuple[str, bytes]]:
        """See Journal.oldest."""
        if not self._file.exists():
            return []

        def select(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            query = "SELECT attempt_id, bill FROM late_bills ORDER BY number LIMIT ?"
            return connection.execute(query, (limit,)).fetchall()

        return await asyncio.to_thread(self._transact, select)

    async def remove(self, attempt_ids: Iterable[str]) -> None:
        """See Journal.remove."""

        def delete(connection: sqlite3.Connection) -> None:
            rows = [(attempt_id,) for attempt_id in attempt_ids]
            connection.executemany("DELETE FROM late_bills WHERE attempt_id = ?", rows)

        await asyncio.to_thread(self._transact, delete)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In a thread: one transaction on a connection of its own, which is seldom needed and never shared."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            connection = sqlite3.connect(self._file, timeout=5.0)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                with connection:
                    connection.execute(_TABLE)
                    return work(connection)
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            raise JournalFull(f"{self._file} cannot be used: {error}") from error
