"""Several statements in one message to PostgreSQL, with one wait for all of their results.

https://www.postgresql.org/docs/current/libpq-pipeline-mode.html

The driver's cursors have a pipeline too, but they send each statement by itself and choose the type of each number by
its size. Here all parameters are text, as in COPY, so that a statement is prepared once for all values.

Where the session's plan_cache_mode is force_generic_plan a statement is planned when it first runs, which takes longer
than a look-up by a key, and that plan is kept. A plan that was made while a table was empty would read all of it when
it has grown, so statements are prepared anew when they are a second old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import generators
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

PLAN_AGE_MAX_S: Final = 1.0
"""So long a statement runs by the plan that it was given at first: tables do not grow much meanwhile."""

_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)


class Sent(NamedTuple):
    """A statement with its parameters in the text format; they are written as $1, $2 ..."""

    text: bytes
    parameters: Sequence[bytes | None] = ()


class PreparedNames:
    """The statements that one session of the server has prepared."""

    def __init__(self) -> None:
        self._names: dict[bytes, tuple[bytes, float]] = {}
        self._made = 0

    def find(self, text: bytes, now_s: float) -> tuple[bytes | None, bytes | None]:
        """The name of a statement that is prepared; else None, and the name under which it was until it was too old."""
        name, made_s = self._names.get(text, (None, now_s))
        return (name, None) if now_s - made_s < PLAN_AGE_MAX_S else (None, name)

    def new_name(self) -> bytes:
        """A name that the session has never heard."""
        self._made += 1
        return b"llmlab_%d" % self._made

    def remember(self, names: Mapping[bytes, bytes], now_s: float) -> None:
        """Statements, with their names, are prepared."""
        self._names.update({text: (name, now_s) for text, name in names.items()})

    def forget(self) -> None:
        """The driver has had the session forget all, as it does after a rollback."""
        self._names.clear()


def run_together(driver: psycopg.Connection[Any], names: PreparedNames | None, sent: Sequence[Sent]) -> list[PGresult]:
    """Run the statements in their order; returns the result of each. Without `names` nothing is prepared.

    Raises the psycopg.Error of the first that failed, after which none was run.
    """
    libpq = driver.pgconn
    now_s = monotonic()
    fresh: dict[bytes, bytes] = {}
    wanted: list[int] = []
    count = 0
    libpq.enter_pipeline_mode()
    try:
        for text, parameters in sent:
            if names is None:
                libpq.send_query_params(text, parameters)
            else:
                name, old = (fresh[text], None) if text in fresh else names.find(text, now_s)
                if old is not None:
                    libpq.send_close_prepared(old)
                    count += 1
                if name is None:
                    name = fresh[text] = names.new_name()
                    libpq.send_prepare(name, text)
                    count += 1
                libpq.send_query_prepared(name, parameters)
            wanted.append(count)
            count += 1
        libpq.pipeline_sync()
        results = driver.wait(_results(libpq, count))
    finally:
        if libpq.status == ConnStatus.OK:
            libpq.exit_pipeline_mode()
    for result in results:
        if result.status in _FAILED:
            raise psycopg.errors.error_from_result(result)
    if names is not None:
        names.remember(fresh, now_s)
    return [results[place] for place in wanted]


def _results(libpq: PGconn, count: int) -> Any:
    """What the driver's `wait` runs: send what is queued, and fetch so many results, and the end of the pipeline."""
    yield from generators.send(libpq)
    results = []
    for _ in range(count):
        results.extend((yield from generators.fetch_many(libpq)))
    yield from generators.fetch_many(libpq)
    return results
