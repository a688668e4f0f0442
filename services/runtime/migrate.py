"""Brings a service's schema up to date with the Alembic revisions in its `migrations` package.

All outstanding revisions run in ONE transaction under a lock, on both dialects: several starters are safe, and a
revision that fails leaves the schema as it was. A service needs no env.py; its package holds `versions/*.py`, each an
ordinary Alembic revision that uses `op` without schema names.
"""

from __future__ import annotations

import logging
import threading
import zlib

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection, text

from services.runtime.revisions import revisions_of

_log = logging.getLogger(__name__)

MIGRATION_TIMEOUT_S = 600.0
"""How long waiting for another starter plus running the revisions may take."""

# Alembic's `op` is global to the process, and `llmlab up` starts five services in one.
_alembic_lock = threading.Lock()


def upgrade(connection: Connection, schema: str, package: str) -> None:
    """Run what is missing of the revisions in `package` ("services.cost.migrations"), within the open transaction.

    A schema that is newer than this code (an older replica restarts during a roll-out) is left alone with a warning.
    Raises what a revision raises; the transaction has to be rolled back then.
    """
    if connection.dialect.name == "postgresql":
        # Held to the end of the transaction; SQLite's BEGIN IMMEDIATE excludes other writers by itself.
        key = zlib.crc32(f"llmlab migrations {schema}".encode())
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        # Looked up first: IF NOT EXISTS demands the right to create schemas even where nothing is to be created.
        known = connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema}).first()
        if known is None:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
    script = ScriptDirectory(str(revisions_of(package)))
    with _alembic_lock:
        before = MigrationContext.configure(connection).get_current_heads()
        if not _known(script, before):
            _log.warning("schema %s is at revision %s, newer than this code; left as it is", schema, before)
            return
        with EnvironmentContext(
            Config(),
            script,
            # Alembic's own commands do the same; it has no public name for it.
            fn=lambda revision, _: script._upgrade_revs("head", revision),  # noqa: SLF001
        ) as environment:
            environment.configure(connection=connection, transactional_ddl=True)
            with environment.begin_transaction():
                environment.run_migrations()
        after = MigrationContext.configure(connection).get_current_heads()
    if after != before:
        _log.info("schema %s migrated from %s to %s", schema, before or "nothing", after)


def _known(script: ScriptDirectory, revisions: tuple[str, ...]) -> bool:
    try:
        script.get_revisions(revisions)
    except (CommandError, ResolutionError):
        return False
    return True
