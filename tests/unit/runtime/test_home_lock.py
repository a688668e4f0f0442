"""Services that are started by themselves, and a command that runs all of them, never share a home."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmlab.cli.embedded import HomeInUseError, start_services
from services.runtime.home_lock import shared_home
from services.runtime.settings import ServiceSettings, SettingsError

HOLD = """
import fcntl, os, sys
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(f"{os.getpid()} ")
    lock.flush()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_services_are_refused_while_a_command_has_the_home_and_not_after_its_death(tmp_path: Path) -> None:
    settings = ServiceSettings(home=tmp_path)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SettingsError, match=f"^LLMLAB_RUNTIME_HOME: .*process {holder.pid}"):
            shared_home(settings).__enter__()
        holder.kill()
        holder.wait()
    with shared_home(settings), shared_home(settings):
        pass


async def test_a_command_is_refused_while_services_have_the_home(tmp_path: Path) -> None:
    with shared_home(ServiceSettings(home=tmp_path)):
        with pytest.raises(HomeInUseError, match="LLMLAB_GATEWAY_TARGET") as caught:
            async with start_services(tmp_path, fixed_ports=False):
                pass
        assert not caught.value.published
    async with start_services(tmp_path, fixed_ports=False):
        pass


def test_a_home_that_cannot_be_used_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"^LLMLAB_RUNTIME_HOME: .*Not a directory"):
        shared_home(ServiceSettings(home=tmp_path / "file")).__enter__()
