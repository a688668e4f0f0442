"""The image and the compose file, for real: `make compose-test` on a machine with a Docker engine.

Where no image can be pulled, LLMLAB_BASE_IMAGE names a base image with Python, and PostgreSQL and Redis are made from
its packages (deploy/compose/packages.yaml). It prints its figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.client import Client, Endpoints, find_credentials
from tests.support.command import llmlab
from tests.support.processes import TESTS
from tools import compose

pytestmark = [
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(not os.environ.get("LLMLAB_TEST_COMPOSE"), reason="opt-in: make compose-test"),
]

ROOT = TESTS.parent
PORTS = {"gateway": 17410, "orchestrator": 17411, "metrics": 17412, "cost": 17413, "identity": 17414}
STUDY = """
name: containers
prompts: ["Say {{n}}."]
dataset: {rows: [%s]}
models: [{model: mock/large, options: {ttft_ms: 250, tokens_per_second: 0, error_rate: 0}}]
repeats: 10
limits: {concurrency: %d}
"""
CELLS = 400
CONCURRENCY = 16


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a command that finds the containers, which are up until the module ends."""
    folder = tmp_path_factory.mktemp("compose")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "HOME", folder / "secrets")
        patch.setenv("LLMLAB_HOME", str(folder / "home"))
        patch.setenv("COMPOSE_PROJECT_NAME", "llmlab-test")
        for name, value in json.loads(os.environ["LLMLAB_TEST_COMPOSE"]).items():
            patch.setenv(name, value)
        for name, port in PORTS.items():
            patch.setenv(f"LLMLAB_{name.upper()}_PORT", str(port))
        began = time.monotonic()
        try:
            compose.up([])
            tell({"up_s": round(time.monotonic() - began, 1)})
            yield folder / "home"
        finally:
            compose.down(volumes=True)


def tell(figures: dict[str, Any]) -> None:
    """Prints figures, for `pytest -s`."""
    sys.stdout.write(json.dumps(figures) + "\n")


def inspect(service: str) -> dict[str, Any]:
    """What Docker says about the container of a service."""
    container = compose.compose("ps", "--all", "--quiet", service, capture=True).strip()
    printed = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(printed)[0]
    return found


def test_the_containers_have_no_more_rights_than_they_need(home: Path) -> None:
    for service in ("identity", "cost", "metrics", "gateway", "gateway-2", "orchestrator", "worker", "worker-2"):
        found = inspect(service)
        assert found["Config"]["User"] == "10001:10001"
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["State"]["Health"]["Status"] == "healthy"


def test_the_sample_study_runs(home: Path) -> None:
    done = llmlab("run", "examples/sweep.yaml", "--json", "--yes", home=home)
    assert done.exit_code == 0, done.notes
    assert len(llmlab("runs", "--json", home=home).json_lines()) >= 1


async def test_a_gateway_and_a_worker_may_be_killed(home: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    rows = ", ".join(f"{{n: {number}}}" for number in range(CELLS // 10))
    study.write_text(STUDY % (rows, CONCURRENCY))
    environ = {**os.environ, "LLMLAB_HOME": str(home)}
    command = [sys.executable, "-m", "llmlab.cli", "run", str(study), "--json", "--yes"]
    process = await asyncio.create_subprocess_exec(*command, env=environ, cwd=ROOT, stdout=subprocess.DEVNULL)
    endpoints, api_key = find_credentials(home, {})
    async with Client(endpoints or Endpoints(), api_key=api_key or "") as client, asyncio.timeout(120):
        run_id = await newest_run(client, "containers")
        await wait_for(client, run_id, CELLS // 4)
        # The processes and not the containers, which Docker would take for a wish that they stay down.
        pids = [inspect(service)["State"]["Pid"] for service in ("gateway", "worker")]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert await process.wait() == 0
        run = await client.get_run(run_id)
    statistics = run.statistics
    tell({"cells_done": statistics.cells_done, "cells_unknown": statistics.cells_unknown})
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    assert statistics.cells_done + statistics.cells_unknown == CELLS
    # What was under way when they were killed may have been paid, so it is not sent again.
    assert statistics.cells_unknown <= CONCURRENCY
    compose.compose("up", "--detach", "--wait", "--no-build")
    assert inspect("gateway")["RestartCount"] == 1
    assert inspect("worker")["RestartCount"] == 1


async def newest_run(client: Client, name: str) -> str:
    """The id of the run of that experiment, as soon as there is one."""
    while True:
        async for run in client.list_runs():
            if run.experiment_name == name:
                return run.run_id
        await asyncio.sleep(0.1)


async def wait_for(client: Client, run_id: str, done: int) -> None:
    """Returns when that many cells are done."""
    async for event in client.watch_run(run_id):
        if event.HasField("progress") and event.progress.statistics.cells_done >= done:
            return


def figures(service: str) -> str:
    """What a process tells Prometheus."""
    ask = "import os, urllib.request as u; print(u.urlopen(f'http://127.0.0.1:{os.environ[\"LLMLAB_TELEMETRY_PORT\"]}/metrics').read().decode())"
    return compose.compose("exec", "--no-TTY", service, "python3", "-c", ask, capture=True)


def test_every_process_tells_its_figures(home: Path) -> None:
    services = ("identity", "cost", "metrics", "gateway", "gateway-2", "orchestrator", "worker", "worker-2")
    texts = {service: figures(service) for service in services}
    resident = {
        service: round(float(re.findall(r"^llmlab_resident_memory_bytes\S* (\S+)$", text, re.MULTILINE)[0]) / 1e6)
        for service, text in texts.items()
    }
    tell({"resident_mb": resident})
    # It looks at the backlog now and then.
    deadline = time.monotonic() + 60
    while "llmlab_cells_open 0" not in figures("orchestrator"):
        assert time.monotonic() < deadline
    assert "llmlab_spend_nano_usd_total" in texts["gateway"]


def test_the_data_can_be_dumped_and_restored(home: Path) -> None:
    user = ("--username=llmlab", *(["--host=127.0.0.1", "--port=17432"] if os.environ.get("LLMLAB_BASE_IMAGE") else []))
    inside = (
        "exec",
        "--no-TTY",
        "--env",
        f"PGPASSWORD={compose.environment()['LLMLAB_POSTGRES_PASSWORD']}",
        "postgres",
    )
    before = len(llmlab("runs", "--json", home=home).json_lines())
    dump = "/tmp/llmlab.dump"
    compose.compose(*inside, "pg_dump", *user, "--format=custom", f"--file={dump}", "llmlab")
    services = ("gateway", "gateway-2", "orchestrator", "worker", "worker-2", "metrics", "cost", "identity")
    compose.compose("stop", *services)
    compose.compose(*inside, "pg_restore", *user, "--dbname=llmlab", "--clean", "--if-exists", dump)
    compose.compose("up", "--detach", "--wait", "--no-build")
    assert len(llmlab("runs", "--json", home=home).json_lines()) == before


def test_the_first_process_of_a_container_obeys_sigterm(home: Path) -> None:
    began = time.monotonic()
    services = ("identity", "cost", "metrics", "gateway", "gateway-2", "orchestrator", "worker", "worker-2")
    compose.compose("stop", *services)
    tell({"stop_s": round(time.monotonic() - began, 1)})
    assert {service: inspect(service)["State"]["ExitCode"] for service in services} == dict.fromkeys(services, 0)
