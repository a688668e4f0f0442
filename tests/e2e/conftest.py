"""One set of services for all tests of commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import free_ports
from tests.support.command import llmlab, services_up


@pytest.fixture(scope="session")
def telemetry_port() -> int:
    """Where the services of `home` tell their figures."""
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, telemetry_port: int) -> Iterator[Path]:
    """The home of services that are up until the session ends; tests find there what others have done."""
    folder = tmp_path_factory.mktemp("up") / "home"
    with services_up(folder, LLMLAB_ORCHESTRATOR_TELEMETRY_PORT=str(telemetry_port)) as addresses:
        # It comes too early and waits for `up`, instead of starting services of its own or refusing.
        status = llmlab("status", "--json", home=folder)
        assert status.exit_code == 0, status.notes
        assert {row["service"]: row["address"] for row in status.json()} == addresses
        yield folder
