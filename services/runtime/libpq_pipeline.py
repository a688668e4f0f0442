"""Several statements in one message to PostgreSQL, with one wait for all of their results.

https://www.postgresql.org/docs/current/libpq-pipeline-mode.html

The driver's cursors have a pipeline too, but they send each statement by itself and choose the type of each number by
its size. Here all parameters are text, as in COPY, so that a statement is prepared once for all values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import generators
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)


class Sent(NamedTuple):
    """A statement with its parameters in the text format; they are written as $1, $2 ..."""

    text: bytes
    parameters: Sequence[bytes | None] = ()


class PreparedNames:
    """The statements that one session of the server has prepared."""

    def __init__(self) -> None:
        self._names: dict[bytes, bytes] = {}
        self._made = 0

    def name_of(self, text: bytes) -> bytes | None:
        """The name of a statement that is prepared."""
        return self._names.get(text)

    def new_name(self) -> bytes:
        """A name that the session has never heard."""
        self._made += 1
        return b"llmlab_%d" % self._made

    def remember(self, names: dict[bytes, bytes]) -> None:
        """Statements, with their names, are prepared."""
        self._names |= names

    def forget(self) -> None:
        """The driver has had the session forget all, as it does after a rollback."""
        self._names.clear()


def run_together(driver: psycopg.Connection[Any], names: PreparedNames | None, sent: Sequence[Sent]) -> list[PGresult]:
    """Run the statements in their order; returns the result of each. Without `names` nothing is prepared.

    Raises the psycopg.Error of the first that failed, after which none was run.
    """
    libpq = driver.pgconn
    fresh: dict[bytes, bytes] = {}
    wanted: list[int] = []
    libpq.enter_pipeline_mode()
    try:
        for text, parameters in sent:
            if names is None:
                libpq.send_query_params(text, parameters)
            else:
                name = names.name_of(text) or fresh.get(text)
                if name is None:
                    name = fresh[text] = names.new_name()
                    libpq.send_prepare(name, text)
                libpq.send_query_prepared(name, parameters)
            wanted.append(len(wanted) + len(fresh))
        libpq.pipeline_sync()
        results = driver.wait(_results(libpq, len(fresh) + len(sent)))
    finally:
        if libpq.status == ConnStatus.OK:
            libpq.exit_pipeline_mode()
    for result in results:
        if result.status in _FAILED:
            raise psycopg.errors.error_from_result(result)
    if names is not None:
        names.remember(fresh)
    return [results[place] for place in wanted]


def _results(libpq: PGconn, count: int) -> Any:
    """What the driver's `wait` runs: send what is queued, and fetch so many results, and the end of the pipeline."""
    yield from generators.send(libpq)
    results = []
    for _ in range(count):
        results.extend((yield from generators.fetch_many(libpq)))
    yield from generators.fetch_many(libpq)
    return results
