"""Accounts, credentials, delegations and signing keys."""

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, Text

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables of services/identity/store.py."""
    _create_accounts()
    _create_sessions()
    _create_credentials()


def _time(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _create_accounts() -> None:
    op.create_table(
        "users",
        Column("user_id", Text, primary_key=True),
        Column("email", Text, nullable=False, unique=True),
        _text("name"),
        _text("password_hash"),
        _time("created_at_us"),
    )
    op.create_table("projects", Column("project_id", Text, primary_key=True), _text("name"), _time("created_at_us"))
    op.create_table(
        "memberships",
        Column("user_id", Text, ForeignKey("users.user_id"), primary_key=True),
        Column("project_id", Text, ForeignKey("projects.project_id"), primary_key=True),
        _text("role"),
    )


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        Column("session_id", Text, primary_key=True),
        Column("user_id", Text, ForeignKey("users.user_id"), nullable=False),
        Column("project_id", Text, ForeignKey("projects.project_id"), nullable=False),
        _time("created_at_us"),
        _time("expires_at_us"),
        _time("revoked_at_us"),
    )
    op.create_index("sessions_by_user", "sessions", ["user_id", "session_id"])
    op.create_index("sessions_by_expiry", "sessions", ["expires_at_us"])
    op.create_table(
        "refresh_tokens",
        Column("digest", LargeBinary, primary_key=True),
        Column("session_id", Text, ForeignKey("sessions.session_id", ondelete="CASCADE"), nullable=False),
        _time("issued_at_us"),
        _time("used_at_us"),
    )
    op.create_index("refresh_tokens_by_session", "refresh_tokens", ["session_id"])


def _create_credentials() -> None:
    op.create_table(
        "api_keys",
        Column("key_id", Text, primary_key=True),
        Column("project_id", Text, ForeignKey("projects.project_id"), nullable=False),
        Column("user_id", Text, ForeignKey("users.user_id"), nullable=False),
        _text("name"),
        _text("prefix"),
        Column("digest", LargeBinary, nullable=False),
        _text("permissions"),
        _time("created_at_us"),
        _time("expires_at_us"),
        _time("revoked_at_us"),
    )
    op.create_index("api_keys_by_project", "api_keys", ["project_id", "key_id"])
    op.create_table(
        "delegations",
        Column("delegation_id", Text, primary_key=True),
        Column("project_id", Text, ForeignKey("projects.project_id"), nullable=False),
        Column("user_id", Text, ForeignKey("users.user_id"), nullable=False),
        _text("key_id"),
        _text("purpose"),
        _time("created_at_us"),
        _time("expires_at_us"),
        _time("revoked_at_us"),
    )
    op.create_index("delegations_by_purpose", "delegations", ["project_id", "purpose"])
    op.create_index("delegations_by_expiry", "delegations", ["expires_at_us"])
    op.create_table(
        "signing_keys",
        Column("generation", BigInteger, primary_key=True, autoincrement=False),
        Column("seed", LargeBinary, nullable=False),
        _time("signs_from_us"),
        _time("signs_until_us"),
    )
