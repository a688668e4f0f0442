"""A file that is no database, or only a part of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.runtime.database import Database
from services.runtime.errors import Unavailable


@pytest.mark.parametrize("content", [b"nothing of the kind" * 300, b"SQLite format 3\0" + bytes(5_000)])
async def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cost.db").write_bytes(content)
    with pytest.raises(Unavailable, match="database of cost"):
        async with Database.open(
            f"sqlite:///{tmp_path / 'cost.db'}", schema="cost", migrations="services.cost.migrations"
        ):
            pass
