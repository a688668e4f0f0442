"""The tables of chat."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text

from services.runtime.requests import request_ids_table

metadata: Final = MetaData()
request_ids: Final = request_ids_table(metadata)

sessions: Final = Table(
    "chat_sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("parameters", LargeBinary, nullable=False),
    Column("history_tokens_max", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("turns", Integer, nullable=False),
    Column("running_turn_id", Text, nullable=False),
    Index("chat_sessions_by_time", "project_id", "created_us", "session_id"),
)
turns: Final = Table(
    "chat_turns",
    metadata,
    Column("session_id", Text, ForeignKey("chat_sessions.session_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("turn_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("question", LargeBinary, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("outcome", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("history_turns", Integer, nullable=False),
    Column("alive_until_us", BigInteger, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Index("chat_turns_by_id", "session_id", "turn_id", unique=True),
)
stream_parts: Final = Table(
    "chat_stream_parts",
    metadata,
    Column("session_id", Text, ForeignKey("chat_sessions.session_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("reads", LargeBinary, nullable=False),
)
