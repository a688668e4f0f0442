"""What starts and stops the services' processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llmlab.cli import embedded
from tools import processes
from tools.local_servers import local_redis, socket_directory

SLEEPER = [sys.executable, "-c", "print('asleep', flush=True); import signal; signal.pause()"]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of this test's own for process ids and logs."""
    directory = tmp_path / "state with a space"
    monkeypatch.setattr(processes, "DATA", tmp_path)
    monkeypatch.setattr(processes, "STATE", directory)
    monkeypatch.setattr(processes, "SERVICES_HOME", tmp_path / "home")
    return directory


def start_sleeper(name: str) -> psutil.Process:
    process = processes.start(name, SLEEPER, dict(os.environ))
    processes.wait_until(name, process, lambda: "asleep" in processes.log_file(name).read_text())
    return process


def test_down_stops_what_was_started_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL) as other:
        process = start_sleeper("gateway")
        assert processes.running("gateway") == process
        assert processes.down() == 0
        assert not process.is_running()
        assert other.poll() is None
        other.kill()
    assert "stopped: gateway" in capsys.readouterr().out
    assert processes.down() == 0
    assert "nothing was running" in capsys.readouterr().out


def test_a_process_id_that_was_used_again_is_left_alone() -> None:
    processes.STATE.mkdir()
    # This very process's id, with another time of creation.
    processes.record_file("cost").write_text(f'{{"pid": {os.getpid()}, "created_at_s": 1.0}}')
    assert processes.running("cost") is None
    assert processes.down() == 0


def test_a_process_that_ends_while_starting_is_told_with_its_log() -> None:
    command = [sys.executable, "-c", "raise SystemExit('LLMLAB_PORT is taken')"]
    process = processes.start("metrics", command, dict(os.environ))
    with pytest.raises(processes.StartError, match=r"metrics ended while starting:\n  LLMLAB_PORT is taken"):
        processes.wait_until("metrics", process, lambda: False)


def test_logs_name_the_process_of_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    start_sleeper("identity")
    processes.down()
    capsys.readouterr()
    assert processes.logs("", follow=False) == 0
    assert capsys.readouterr().out == "identity     asleep\n"
    assert processes.logs("nobody", follow=False) == 1
    assert "nobody" in capsys.readouterr().err


def test_nobody_is_healthy_where_nothing_listens() -> None:
    assert not processes.is_healthy("127.0.0.1:1")


def test_the_services_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = embedded.service_key(tmp_path / "home")
    assert len(bytes.fromhex(key)) == 32
    assert embedded.service_key(tmp_path / "home") == key
    assert (tmp_path / "home" / "service.key").stat().st_mode & 0o777 == 0o600


def test_a_local_redis_starts_and_stops(tmp_path: Path) -> None:
    server = local_redis(tmp_path)
    if server is None:
        pytest.skip("no redis-server is installed")
    try:
        process = processes.start(server.name, server.command, dict(os.environ), **server.options)
        processes.wait_until(server.name, process, server.answers)
        processes.down()
        assert not server.answers()
    finally:
        processes.down()
    socket_directory(tmp_path).rmdir()  # made anew and empty: `down` has removed the other
