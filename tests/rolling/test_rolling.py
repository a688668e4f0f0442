"""Rolling restarts and upgrades: `make rolling-test`. Two processes of each service, behind client-side load balancing.

While a study runs and a client asks without a pause, every service is restarted one process at a time. No idempotent
call may fail, no cell may be paid twice, and the watch of the run goes on. For the upgrade, the processes that are
there at first are those of an earlier commit, on the newer schema.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llmlab.api.common.v1 import content_pb2, value_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2, run_pb2
from llmlab.client import Client, Endpoints, find_credentials
from tests.support.cluster import ROOT, START_ORDER, Cluster, MockProvider, free_ports, mock_provider
from tests.support.databases import fresh_database, fresh_redis_url
from tests.support.processes import start_child

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("LLMLAB_TEST_ROLLING"), reason="opt-in: make rolling-test"),
]

CELLS = 1_500
CONCURRENCY = 32
TTFT_MS = 2_500
# What a roll-out waits after a process is ready, as Kubernetes' minReadySeconds: clients find it again meanwhile.
MIN_READY_S = 3.0
CATALOGUE = """
providers:
  - {{name: witness, kind: openai, base_url: "{base_url}", models: [{{name: "*"}}]}}
"""


@dataclass
class Replica(Cluster):
    """One process of each service, of the code in `code`."""

    code: Path = field(default=ROOT)

    def launch(self, name: str, **environ: str) -> None:
        """Starts a service from `code`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = start_child(
                [sys.executable, "-m", f"services.{name}"],
                on_parent_death=signal.SIGKILL,
                env={**self.environ, "PYTHONPATH": str(self.code), **environ},
                cwd=self.code,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def restart(self, name: str, code: Path) -> None:
        """Stops a process gently and starts one from `code` in its place."""
        self.processes[name].terminate()
        status = self.wait_end(name)
        assert status == 0, self.log(name)
        self.code = code
        self.start(name)


@dataclass
class Pair:
    """Two replicas of everything, and the witness that they call."""

    replicas: list[Replica]
    witness: MockProvider

    def client(self) -> Client:
        """A client that goes round both."""
        _, api_key = find_credentials(self.replicas[0].home, {})
        assert api_key
        return Client(Endpoints(**targets([replica.ports for replica in self.replicas])), api_key=api_key)


def targets(ports: list[dict[str, int]]) -> dict[str, str]:
    """The target of each service that names all its processes."""
    return {name: "ipv4:" + ",".join(f"127.0.0.1:{each[name]}" for each in ports) for name in START_ORDER}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[[Path], Pair]]:
    """Starts a pair of replicas from a directory of code, on the schema of this one."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    ports = [dict(zip(START_ORDER, free_ports(len(START_ORDER)), strict=True)) for _ in range(2)]
    environ |= {f"LLMLAB_{name.upper()}_TARGET": target for name, target in targets(ports).items()}
    started: list[Replica] = []
    with mock_provider(tmp_path) as witness, fresh_database("postgresql", tmp_path) as database_url:
        catalogue = tmp_path / "catalogue.yaml"
        catalogue.write_text(CATALOGUE.format(base_url=witness.base_url))
        environ |= {
            "LLMLAB_DATABASE_URL": database_url,
            "LLMLAB_REDIS_URL": fresh_redis_url(),
            "LLMLAB_AUTH_SERVICE_KEY": secrets.token_hex(32),
            "LLMLAB_GATEWAY_CATALOGUE_FILE": str(catalogue),
            "LLMLAB_DATABASE_POOL_SIZE": "4",
        }

        def start(code: Path) -> Pair:
            migrate = [sys.executable, "-m", "services.runtime.migrate_services"]
            subprocess.run(migrate, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
            for number, own in enumerate(ports):
                folder = tmp_path / f"replica-{number}"
                folder.mkdir()
                variables = {f"LLMLAB_{name.upper()}_PORT": str(port) for name, port in own.items()}
                # One home, where the owner's key is; bills of the gateways are apart.
                variables |= {"LLMLAB_HOME": str(tmp_path / "home"), "LLMLAB_GATEWAY_HOME": str(folder)}
                variables |= {} if number == 0 else {"LLMLAB_IDENTITY_BOOTSTRAP_OWNER": "false"}
                replica = Replica(folder, {**environ, **variables}, own, code=code)
                started.append(replica)
                for name in START_ORDER:
                    replica.start(name)
            (tmp_path / "replica-0" / "home").symlink_to(tmp_path / "home")
            return Pair(started, witness)

        try:
            yield start
        finally:
            for replica in started:
                replica.stop()


def study() -> experiment_pb2.ExperimentSpec:
    """One prompt, CELLS rows, answers that take a while."""
    message = experiment_pb2.MessageTemplate(role=content_pb2.ROLE_USER, text="Say {{n}}.")
    options = {"ttft_ms": TTFT_MS, "tokens_per_second": 0}
    return experiment_pb2.ExperimentSpec(
        prompts=[experiment_pb2.PromptTemplate(name="p", messages=[message])],
        dataset=experiment_pb2.Dataset(
            rows=[experiment_pb2.Row(columns={"n": value_pb2.Value(int_value=number)}) for number in range(CELLS)]
        ),
        models=[
            experiment_pb2.ModelTarget(
                model="witness/small",
                provider_options={name: value_pb2.Value(int_value=value) for name, value in options.items()},
            )
        ],
        limits=experiment_pb2.RunLimits(concurrency=CONCURRENCY, requests_per_minute=1_000_000),
    )


async def ask_without_a_pause(client: Client, run_id: str, stopping: asyncio.Event, asked: Counter[str]) -> None:
    """Idempotent calls to every service; one that fails ends it with its error."""
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "orchestrator": lambda: client.get_run(run_id),
        "identity": client.who_am_i,
        "gateway": lambda: client.server_info("gateway"),
        "metrics": lambda: client.server_info("metrics"),
        "cost": lambda: client.server_info("cost"),
    }
    while not stopping.is_set():
        for name, question in questions.items():
            await question()
            asked[name] += 1
        await asyncio.sleep(0.01)


async def run_through_restarts(pair: Pair, code: Path) -> None:
    """A study, watched and asked about, while every process is replaced by one of `code`."""
    began = time.monotonic()
    asked: Counter[str] = Counter()
    stopping = asyncio.Event()
    async with pair.client() as client:
        experiment = await client.create_experiment("rolling", study())
        run_id = (await client.start_run(experiment.experiment_id, request_id="rolling")).run_id

        async def watch() -> list[int]:
            return [event.sequence async for event in client.watch_run(run_id)]

        watching = asyncio.create_task(watch())
        asking = asyncio.create_task(ask_without_a_pause(client, run_id, stopping, asked))
        for name in START_ORDER:
            for replica in pair.replicas:
                await asyncio.to_thread(replica.restart, name, code)
                await asyncio.sleep(MIN_READY_S)
                assert not asking.done(), asking.exception()
        restarted_s = time.monotonic() - began
        during = (await client.get_run(run_id)).statistics.cells_done
        sequences = await asyncio.wait_for(watching, 120)
        stopping.set()
        await asking
        run = await client.get_run(run_id)
    calls = Counter(call["idempotency_key"] for call in pair.witness.calls() if run_id in call["idempotency_key"])
    figures = {
        "restarts": 2 * len(START_ORDER),
        "restarts_s": round(restarted_s, 1),
        "cells_done_meanwhile": during,
        "cells_done": run.statistics.cells_done,
        "cells_unknown": run.statistics.cells_unknown,
        "idempotent_calls": sum(asked.values()),
        "idempotent_calls_failed": 0,
        "paid_calls": len(calls),
        "paid_twice": sum(count > 1 for count in calls.values()),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    assert sequences == list(range(1, run.last_sequence + 1))
    assert run.statistics.cells_done == CELLS
    # Each cell has one paid call: none was lost, none was repeated.
    assert len(calls) == CELLS
    assert set(calls.values()) == {1}


def unpack(commit: str, folder: Path) -> None:
    """Put the files of a commit into a new folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=archive, check=True)


async def test_every_service_is_restarted_one_process_at_a_time(pair: Callable[[Path], Pair]) -> None:
    await run_through_restarts(await asyncio.to_thread(pair, ROOT), ROOT)


async def test_an_earlier_commit_runs_on_the_newer_schema_and_is_replaced(
    pair: Callable[[Path], Pair], tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    unpack(os.environ["LLMLAB_TEST_ROLLING"], earlier)
    await run_through_restarts(await asyncio.to_thread(pair, earlier), ROOT)
