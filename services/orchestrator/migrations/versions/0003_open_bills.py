"""Open bills get a table of their own: also attempts that gave no result can be waiting for their cost."""

from alembic import op
from sqlalchemy import BigInteger, Column, Text

revision = "0003"
down_revision = "0002"

_TOKENS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "steps",
)
_KEYS = ("cell", "attempt")


def upgrade() -> None:
    """Creates `open_bills`, fills it from the results that are not settled, and drops that column."""
    op.create_table(
        "open_bills",
        Column("run_id", Text, primary_key=True, nullable=False),
        *(Column(name, BigInteger, primary_key=True, nullable=False, autoincrement=False) for name in _KEYS),
        Column("status", Text, nullable=False),
        *(Column(name, BigInteger, nullable=False) for name in (*_TOKENS, "usage_estimated")),
        Column("provider_model", Text, nullable=False),
        Column("created_us", BigInteger, nullable=False),
        Column("ask_at_us", BigInteger, nullable=False),
    )
    op.create_index("open_bills_by_time", "open_bills", ["ask_at_us"])
    copied = ("run_id", *_KEYS, "status", "usage_estimated", "provider_model", "created_us")
    # A result has the tokens of its earlier attempts in it.
    own = ", ".join(f"r.{name} - {_earlier(name)}" for name in _TOKENS)
    op.execute(
        f"INSERT INTO open_bills ({', '.join(copied)}, ask_at_us, {', '.join(_TOKENS)}) "  # noqa: S608 (names above)
        f"SELECT {', '.join(f'r.{name}' for name in copied)}, r.created_us, {own} FROM results r WHERE NOT r.settled"
    )
    op.drop_column("results", "settled")


def _earlier(name: str) -> str:
    return (
        f"COALESCE((SELECT SUM(a.{name}) FROM attempts a "  # noqa: S608 (a name of the list above)
        "WHERE a.run_id = r.run_id AND a.cell = r.cell AND a.attempt <> r.attempt), 0)"
    )
