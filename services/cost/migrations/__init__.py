"""Alembic revisions of the schema "cost"."""
