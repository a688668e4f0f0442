import pytest

from services.runtime.dialects import checked_schema, parse_url


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://user@host/db", "postgresql+psycopg"),
        ("postgresql+asyncpg://user@host/db", "postgresql+psycopg"),
        ("sqlite:////tmp/with%20space/x.db", "sqlite"),
        ("sqlite+aiosqlite:///x.db", "sqlite"),
    ],
)
def test_the_driver_is_ours(url: str, driver: str) -> None:
    assert parse_url(url).drivername == driver


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "secret", ""])
def test_a_useless_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"postgresql://|sqlite:////") as raised:
        parse_url(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("schema", ["", "Cost", "1cost", 'cost"; DROP TABLE x', "c" * 64])
def test_a_schema_needs_no_quotes(schema: str) -> None:
    with pytest.raises(ValueError, match="not a schema name"):
        checked_schema(schema)
