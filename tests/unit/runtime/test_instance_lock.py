import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.database import Database
from services.runtime.dialects import DatabaseOptions
from services.runtime.instance_lock import instance_lock
from services.runtime.settings import SettingsError

HOLD = """
import sys, pathlib
from services.runtime.instance_lock import instance_lock
with instance_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_told_which_setting_and_which_process(tmp_path: Path) -> None:
    path = tmp_path / "home" / "cost.db"
    with instance_lock(path), pytest.raises(SettingsError, match=f"LLMLAB_HOME.*process \\(id {os.getpid()}\\)"):
        instance_lock(path).__enter__()
    with instance_lock(path):
        pass


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "cost.db"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SettingsError, match=f"id {holder.pid}"):
            instance_lock(path).__enter__()
        holder.kill()
        holder.wait()
    with instance_lock(path):
        pass


async def test_a_database_that_is_opened_exclusively_has_one_process(sqlite_url: str) -> None:
    exclusive = DatabaseOptions(exclusive=True)
    async with Database.open(sqlite_url, schema="cost", options=exclusive):
        with pytest.raises(SettingsError, match="LLMLAB_HOME"):
            Database(sqlite_url, schema="cost", options=exclusive)
    async with Database.open(sqlite_url, schema="cost", options=exclusive):
        pass
