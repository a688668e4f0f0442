"""`python -m services.runtime.migrate_services`: brings the schema of every service up to date, and ends.

A service does it by itself when it starts; this is for those who want it done before, or by another database user.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from importlib import import_module

from sqlalchemy import make_url

from services.runtime.errors import DomainError
from services.runtime.service_database import database_url, open_service_database
from services.runtime.settings import DEFAULT_PORTS, ServiceSettings, SettingsError, load_settings


def settings_of(service: str) -> ServiceSettings:
    """The settings of a service, found by its name: this package imports no service."""
    module = import_module(f"services.{service}.settings")
    settings_class: type[ServiceSettings] = getattr(module, f"{service.capitalize()}Settings")
    return load_settings(settings_class)


async def migrate_services() -> list[str]:
    """Migrates the database of every service that has one; returns a line for each.

    Raises SettingsError and DomainError; the services before the one that failed stay migrated.
    """
    lines = []
    for service in DEFAULT_PORTS:
        if importlib.util.find_spec(f"services.{service}.migrations") is None:
            continue
        settings = settings_of(service)
        if not settings.has_database:
            continue
        async with open_service_database(settings):
            lines.append(f"{service}: up to date in {make_url(database_url(settings)).render_as_string()}")
    return lines


def main() -> int:
    """Entry point; returns the exit status."""
    try:
        lines = asyncio.run(migrate_services())
    except (SettingsError, DomainError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
