"""Whether a service's schema is up to date: the question of every start, answered without loading Alembic."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sqlalchemy import Connection, inspect, text

_VERSIONS_TABLE = "alembic_version"


def revisions_of(package: str) -> Path:
    """The directory of the package of revisions, such as "services.cost.migrations".

    Raises ModuleNotFoundError where there is none.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package of migrations named {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def newest_revision(package: str) -> str:
    """The revision that comes last. Files are named `<revision>_<what it does>.py`, and each follows the one before."""
    return max(path.stem.partition("_")[0] for path in (revisions_of(package) / "versions").glob("*.py"))


def is_up_to_date(connection: Connection, package: str) -> bool:
    """Whether the schema is at the newest revision; False too where it has none, or one that is not known here."""
    if not inspect(connection).has_table(_VERSIONS_TABLE):
        return False
    found = connection.execute(text(f"SELECT version_num FROM {_VERSIONS_TABLE}")).scalars().all()  # noqa: S608 - ours
    return list(found) == [newest_revision(package)]
