"""The five services as five processes, as `make up` runs them, and the command that finds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmlab.client import SERVICES
from tests.support.cluster import free_ports
from tests.support.command import llmlab
from tools import processes

PORTS = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str, redis_url: str) -> Iterator[Path]:
    """A person's home; what `up` starts serves on ports of this test and is stopped after it."""
    folder = tmp_path / "home"
    monkeypatch.setattr(processes, "DATA", tmp_path)
    monkeypatch.setattr(processes, "STATE", tmp_path / "processes")
    monkeypatch.setattr(processes, "SERVICES_HOME", tmp_path / "services")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    environ |= {f"LLMLAB_{name.upper()}_PORT": str(port) for name, port in PORTS.items()}
    environ |= {f"LLMLAB_{name.upper()}_TARGET": f"127.0.0.1:{port}" for name, port in PORTS.items()}
    environ |= {"LLMLAB_HOME": str(folder), "LLMLAB_DATABASE_URL": postgresql_url, "LLMLAB_REDIS_URL": redis_url}
    monkeypatch.setattr(os, "environ", environ)
    yield folder
    processes.down()


def test_up_and_down_leave_the_embedded_owner_and_its_runs_alone(home: Path) -> None:
    assert llmlab("chat", "Hello", home=home).exit_code == 0
    credentials = (home / "credentials.json").read_bytes()

    assert processes.up() == 0
    rows = llmlab("status", "--json", home=home).json()
    assert {row["service"]: row["address"] for row in rows} == {n: f"127.0.0.1:{port}" for n, port in PORTS.items()}
    assert {row["health"] for row in rows} == {"SERVING"}
    assert llmlab("spend", "--json", home=home).json()["total"].get("calls", 0) == 0  # another database
    assert processes.log_file("identity").stat().st_mode & 0o777 == 0o600

    assert processes.down() == 0
    assert not (home / "endpoints.json").exists()
    assert (home / "credentials.json").read_bytes() == credentials
    assert llmlab("spend", "--json", home=home).json()["total"]["calls"] == 1
    assert (home / "credentials.json").read_bytes() == credentials


def test_down_leaves_the_endpoints_of_others(home: Path) -> None:
    processes.STATE.mkdir()
    processes.publish_endpoints(home, {name: f"127.0.0.1:{port}" for name, port in PORTS.items()})
    (home / "endpoints.json").write_text('{"process": 1, "targets": {}}')  # `llmlab up`, since then
    assert processes.down() == 0
    assert (home / "endpoints.json").exists()
