"""Who may start services on a home."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from llmlab.cli.embedded import HomeInUseError, private_file, start_services


@pytest.mark.parametrize(
    ("holder", "process", "published", "advice"),
    [
        ("123 published", "process 123", True, "`llmlab status`"),
        ("123 ", "process 123", False, "`llmlab up` first"),
        ("", "process unknown", False, "LLMLAB_HOME"),
    ],
)
async def test_a_home_in_use_names_its_holder(
    tmp_path: Path, holder: str, process: str, published: bool, advice: str
) -> None:
    with (tmp_path / "lock").open("w+") as lock:
        lock.write(holder)
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HomeInUseError, match=process) as caught:
            async with start_services(tmp_path, fixed_ports=False):
                pass
    assert caught.value.published is published
    assert advice in str(caught.value)


def test_a_log_becomes_private_whatever_it_was(tmp_path: Path) -> None:
    log = tmp_path / "llmlab.log"
    log.write_text("of an earlier release")
    log.chmod(0o644)
    with private_file(log) as file:
        file.write("new")
    assert log.read_text() == "new"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_later_start_loads_neither_a_driver_nor_migrations_that_it_does_not_need(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from llmlab.cli.embedded import start_services
async def start():
    async with start_services(Path({str(tmp_path)!r}), fixed_ports=False):
        print([name for name in ("alembic", "psycopg") if name in sys.modules])
asyncio.run(start())
"""
    command = [sys.executable, "-c", code]
    starts = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=60) for _ in range(2)]
    assert [start.stdout for start in starts] == ["['alembic']\n", "[]\n"]
