"""A service's own database, as its settings name it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from services.runtime.clock import Clock
from services.runtime.database import Database
from services.runtime.dialects import DatabaseOptions, parse_url
from services.runtime.home_lock import shared_home
from services.runtime.settings import ServiceSettings, SettingsError


def database_url(settings: ServiceSettings) -> str:
    """`database_url`, or the URL of the SQLite file <home>/<service>.db where it is empty."""
    return settings.database_url or URL.create("sqlite", database=str(_file(settings))).render_as_string()


@asynccontextmanager
async def open_service_database(settings: ServiceSettings, *, clock: Clock | None = None) -> AsyncIterator[Database]:
    """Open the service's database, migrated to services/<service>/migrations, and close it at the end.

    Raises SettingsError for a useless URL or home, and for a home that an `llmlab` command uses; Unavailable where the
    database cannot be reached.
    """
    url = database_url(settings)
    try:
        parse_url(url)
    except ValueError as error:
        raise SettingsError(f"{settings.variable('database_url')}: {error}") from None
    options = DatabaseOptions(
        pool_size=settings.database_pool_size,
        prepared_statements=settings.database_prepared_statements,
    )
    migrations = f"services.{settings.service}.migrations"
    with ExitStack() as home:
        if not settings.database_url:
            _make_private(_file(settings), settings)
            home.enter_context(shared_home(settings))
        async with Database.open(
            url, schema=settings.service, migrations=migrations, options=options, clock=clock
        ) as database:
            yield database


def _file(settings: ServiceSettings) -> Path:
    return settings.home_directory / f"{settings.service}.db"


def _make_private(file: Path, settings: ServiceSettings) -> None:
    """Make the file before SQLite does, for its owner only: it holds keys and people's data."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        raise SettingsError(f"{settings.variable('home')}: {file} cannot be made: {error.strerror}") from None
