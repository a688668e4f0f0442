"""The migrations make the tables that the code uses."""

from sqlalchemy import Connection, text

from services.cost.store import alert_tables, insight_tables
from services.cost.store.tables import metadata, request_ids
from services.runtime.database import Database
from tests.contract.cost.conftest import OpenDatabase
from tests.support.databases import schema_differences

ALL_TABLES = (alert_tables.alerts, insight_tables.anomalies, *metadata.tables.values())
"""Named so that the modules of those that others refer to are there too."""


async def test_the_migrations_make_the_tables_that_the_code_uses(open_database: OpenDatabase) -> None:
    database = await open_database("cost", migrations="services.cost.migrations")
    assert all(table.metadata is metadata for table in ALL_TABLES)
    assert await schema_differences(database, metadata) == []
    assert await database.read(_columns_of_a_language, database) == []


def _columns_of_a_language(connection: Connection, database: Database) -> list[str]:
    """Columns of text that are not ordered by their bytes."""
    if database.dialect == "sqlite":
        return []  # It orders every text by its bytes.
    found = connection.execute(
        text(
            "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'cost'"
            " AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C' AND table_name <> :others"
        ),
        {"others": request_ids.name},
    )
    return list(found.scalars())
