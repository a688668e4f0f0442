"""Migrations: in one transaction, once, whoever starts at the same time; on both dialects."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from services.runtime.database import Database
from services.runtime.migrate import upgrade
from services.runtime.revisions import is_up_to_date, newest_revision, revisions_of
from tests.conftest import OpenDatabase
from tests.support.databases import schema_differences

CREATE = """
    legs = sa.Column("legs", sa.BigInteger, nullable=False)
    op.create_table("animals", sa.Column("id", sa.Text, primary_key=True), legs)
    op.create_index("animals_legs", "animals", ["legs"])
"""
ADD = """
    op.add_column("animals", sa.Column("name", sa.Text, nullable=True))
    op.execute("INSERT INTO animals (id, legs, name) VALUES ('a', 4, 'cow')")
"""
BROKEN = """
    op.execute("INSERT INTO animals (id, legs) VALUES ('b', 2)")
    op.execute("INSERT INTO plants (id) VALUES (1)")
"""


class Package:
    """A package of migrations that a test writes."""

    name = "zoo_with_migrations"

    def __init__(self, directory: Path) -> None:
        # A percent sign and a space, which configuration files of Alembic stumble over.
        self._root = directory / "50% off"
        self._versions = self._root / self.name / "versions"
        self._versions.mkdir(parents=True)
        (self._root / self.name / "__init__.py").touch()
        self._last: str | None = None

    @property
    def root(self) -> str:
        return str(self._root)

    def add(self, revision: str, upgrade: str) -> None:
        source = dedent(f"""
            import sqlalchemy as sa
            from alembic import op
            revision = {revision!r}
            down_revision = {self._last!r}
            def upgrade():
        """)
        (self._versions / f"{revision}.py").write_text(f"{source}{upgrade}")
        self._last = revision

    def remove(self, revision: str) -> None:
        (self._versions / f"{revision}.py").unlink()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    package = Package(tmp_path)
    package.add("0001", CREATE)
    monkeypatch.syspath_prepend(package.root)
    yield package
    sys.modules.pop(package.name, None)


@pytest.fixture
async def database(open_database: OpenDatabase) -> Database:
    return await open_database("zoo")


async def tables(database: Database) -> set[str]:
    def names(connection: Connection) -> set[str]:
        return set(inspect(connection).get_table_names(schema="zoo" if database.dialect == "postgresql" else None))

    return await database.read(names)


async def revisions(database: Database) -> list[str]:
    return await database.read(
        lambda connection: list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    )


async def test_outstanding_revisions_run_in_order_and_once(database: Database, package: Package) -> None:
    await database.write(upgrade, database.schema, package.name)
    assert await revisions(database) == ["0001"]
    package.add("0002", ADD)
    await database.write(upgrade, database.schema, package.name)
    await database.write(upgrade, database.schema, package.name)
    assert await revisions(database) == ["0002"]
    assert await database.read(lambda connection: connection.execute(text("SELECT id, legs FROM animals")).all()) == [
        ("a", 4)
    ]


async def test_a_revision_that_fails_leaves_everything_as_it_was(database: Database, package: Package) -> None:
    package.add("0002", BROKEN)
    with pytest.raises(sa.exc.DBAPIError, match="plants"):
        await database.write(upgrade, database.schema, package.name)
    assert await tables(database) == set()
    package.remove("0002")
    await database.write(upgrade, database.schema, package.name)
    assert await tables(database) == {"alembic_version", "animals"}


async def test_concurrent_starters_migrate_once(open_database: OpenDatabase, package: Package) -> None:
    package.add("0002", ADD)
    databases = await asyncio.gather(*[open_database("zoo", migrations=package.name) for _ in range(5)])
    assert [await revisions(database) for database in databases] == [["0002"]] * 5


async def test_services_that_share_a_process_migrate_side_by_side(
    open_database: OpenDatabase, package: Package
) -> None:
    schemas = ["zoo", "farm", "park"]
    if (await open_database("zoo")).dialect == "sqlite":
        pytest.skip("on SQLite each service has a file of its own")
    await asyncio.gather(*[open_database(schema, migrations=package.name) for schema in schemas])


async def test_a_schema_that_is_newer_than_the_code_is_left_alone(
    database: Database, package: Package, caplog: pytest.LogCaptureFixture
) -> None:
    package.add("0002", ADD)
    await database.write(upgrade, database.schema, package.name)
    package.remove("0002")
    await database.write(upgrade, database.schema, package.name)
    assert await revisions(database) == ["0002"]
    assert "newer than this code" in caplog.text


async def test_a_start_with_nothing_to_migrate_is_told_from_others(database: Database, package: Package) -> None:
    found = [await database.read(is_up_to_date, package.name)]
    for revision, change in (("0001", None), ("0002", ADD)):
        if change is not None:
            package.add(revision, change)
            found.append(await database.read(is_up_to_date, package.name))
        await database.write(upgrade, database.schema, package.name)
        found.append(await database.read(is_up_to_date, package.name))
    package.remove("0002")
    found.append(await database.read(is_up_to_date, package.name))

    assert found == [False, True, False, True, False]


@pytest.mark.parametrize("service", ["cost", "gateway", "identity", "orchestrator"])
def test_the_newest_revision_is_the_one_that_alembic_ends_at(service: str) -> None:
    package = f"services.{service}.migrations"
    assert newest_revision(package) == ScriptDirectory(str(revisions_of(package))).get_current_head()


async def test_a_package_that_is_not_there_is_named(database: Database) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        await database.write(upgrade, database.schema, "no_such_package")


async def test_differences_between_tables_and_migrations_are_found(database: Database, package: Package) -> None:
    await database.write(upgrade, database.schema, package.name)
    metadata = sa.MetaData()
    animals = sa.Table(
        "animals",
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("legs", sa.BigInteger, nullable=False),
    )
    missing_index = await schema_differences(database, metadata)
    assert [difference[0] for difference in missing_index] == ["remove_index"]
    sa.Index("animals_legs", animals.c.legs)
    assert await schema_differences(database, metadata) == []
    animals.append_column(sa.Column("name", sa.Text))
    assert [difference[0] for difference in await schema_differences(database, metadata)] == ["add_column"]
