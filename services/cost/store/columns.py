"""The kinds of columns that the tables are made of."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Text


def words(name: str, *, key: bool = False) -> Column[Any]:
    """Text; "" where there is none.

    Ordered by its bytes, as on SQLite: the migrations say so, because statements need not (PostgreSQL: COLLATE "C").
    """
    return Column(name, Text, primary_key=key, nullable=False)


def integer(name: str, *, key: bool = False) -> Column[Any]:
    """A whole number of 64 bits."""
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False)


def flag(name: str) -> Column[Any]:
    """True or false."""
    return Column(name, Boolean, nullable=False)
