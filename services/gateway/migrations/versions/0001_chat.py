"""Chat sessions, their turns and the streams of the latest turns."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, LargeBinary, Text

from services.runtime.requests import request_ids_columns

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables of services/gateway/store/chat_tables.py."""
    op.create_table("request_ids", *request_ids_columns())
    op.create_index("request_ids_created_us", "request_ids", ["created_us"])
    _create_sessions()
    _create_turns()


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _session_id() -> Column[str]:
    owner = ForeignKey("chat_sessions.session_id", ondelete="CASCADE")
    return Column("session_id", Text, owner, primary_key=True)


def _create_sessions() -> None:
    op.create_table(
        "chat_sessions",
        Column("session_id", Text, primary_key=True),
        _text("project_id"),
        _text("user_id"),
        _text("title"),
        _text("model"),
        _text("system"),
        _bytes("parameters"),
        _number("history_tokens_max"),
        _number("created_us"),
        _number("updated_us"),
        Column("turns", Integer, nullable=False),
        _text("running_turn_id"),
    )
    op.create_index("chat_sessions_by_time", "chat_sessions", ["project_id", "created_us", "session_id"])


def _create_turns() -> None:
    op.create_table(
        "chat_turns",
        _session_id(),
        Column("number", Integer, primary_key=True, autoincrement=False),
        _text("turn_id"),
        _text("state"),
        _bytes("question"),
        _bytes("answer"),
        _bytes("outcome"),
        _number("created_us"),
        _number("ended_us"),
        _number("last_sequence"),
        _number("first_sequence"),
        Column("history_turns", Integer, nullable=False),
        _number("alive_until_us"),
        Column("cancelled", Boolean, nullable=False),
    )
    op.create_index("chat_turns_by_id", "chat_turns", ["session_id", "turn_id"], unique=True)
    op.create_table(
        "chat_stream_parts",
        _session_id(),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        _bytes("reads"),
    )
