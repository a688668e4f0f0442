"""Worker processes: they work, they are replaced, and they never outlive their parent."""

import asyncio
import math
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.runtime.errors import Internal, ResourceExhausted, Unavailable
from services.runtime.pool import ProcessPool
from services.runtime.stopping import check_stopped
from tests.support.orchestrator import eventually
from tests.support.processes import module_command

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("workers", [0, 2])
async def test_results_and_exceptions_come_back(workers: int) -> None:
    async with ProcessPool.open(workers) as pool:
        assert await asyncio.gather(*[pool.run(math.sqrt, float(n * n)) for n in range(20)]) == list(range(20))
        with pytest.raises(ZeroDivisionError):
            await pool.run(operator.floordiv, 1, 0)


async def test_without_workers_the_work_stays_in_the_process() -> None:
    async with ProcessPool.open(0) as pool:
        assert await pool.run(os.getpid) == os.getpid()
    async with ProcessPool.open(1) as pool:
        assert await pool.run(os.getpid) != os.getpid()


@pytest.mark.parametrize("early", [True, False])
async def test_workers_start_with_the_pool_or_with_the_first_task(early: bool) -> None:
    async with ProcessPool.open(1, early=early) as pool:
        assert bool(multiprocessing.active_children()) == early
        assert await pool.run(math.sqrt, 4.0) == 2
        assert multiprocessing.active_children()


async def test_a_killed_worker_is_replaced_and_its_task_run_again() -> None:
    async with ProcessPool.open(1) as pool:
        first = await pool.run(os.getpid)
        sleeping = asyncio.create_task(pool.run(time.sleep, 0.5))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        await sleeping
        assert await pool.run(os.getpid) != first


async def test_a_task_that_kills_its_worker_twice_fails_and_the_pool_goes_on() -> None:
    async with ProcessPool.open(1) as pool:
        with pytest.raises(Internal):
            await pool.run(os._exit, 3)
        assert await pool.run(math.sqrt, 4.0) == 2


async def test_workers_that_cannot_warm_up_fail_the_task() -> None:
    async with ProcessPool.open(1, warm_up=os.abort) as pool:
        with pytest.raises(Internal):
            await pool.run(math.sqrt, 4.0)


async def test_waiting_tasks_are_bounded() -> None:
    async with ProcessPool.open(1, max_waiting=1) as pool:
        tasks = [asyncio.create_task(pool.run(time.sleep, 0.2)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted) as raised:
            await pool.run(os.getpid)
        assert raised.value.reason == "OVERLOADED"
        await asyncio.gather(*tasks)
        assert await pool.run(math.sqrt, 4.0) == 2


def go_on_until_stopped(begun: Path) -> None:
    begun.touch()
    while True:
        check_stopped()


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_task_whose_caller_left_ends(workers: int, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    async with ProcessPool.open(workers, max_waiting=3) as pool:
        task = asyncio.create_task(pool.run(go_on_until_stopped, begun))
        await eventually(begun.exists)
        waiting = asyncio.create_task(pool.run(go_on_until_stopped, begun))
        await asyncio.sleep(0)
        for each in (waiting, task):
            each.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
        # The one worker is free again, and a place that was left stops nobody else.
        assert [await pool.run(math.sqrt, 4.0) for _ in range(5)] == [2] * 5
        await eventually(lambda: pool.unfinished == 0)


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_closed_pool_finishes_what_it_has_and_refuses_more(workers: int) -> None:
    async with ProcessPool.open(workers) as pool:
        task = asyncio.create_task(pool.run(math.sqrt, 9.0))
        await asyncio.sleep(0)
    assert await task == 3
    with pytest.raises(Unavailable) as raised:
        await pool.run(math.sqrt, 4.0)
    assert raised.value.reason == "SHUTTING_DOWN"


def start_owner() -> "subprocess.Popen[bytes]":
    command = module_command("tests.support.pool_owner")
    # Its own session, so that a signal to its group does not reach the tests.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def ask(owner: "subprocess.Popen[bytes]") -> bytes:
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.write(b"\n")
    owner.stdin.flush()
    return owner.stdout.readline()


def test_workers_end_with_a_killed_parent() -> None:
    with start_owner() as owner:
        assert owner.stdout is not None
        assert int(ask(owner)) != owner.pid
        owner.kill()
        # The worker holds the other end of this pipe too: it ends when the worker has ended.
        assert owner.stdout.read() == b""


def test_workers_leave_the_interrupt_to_their_parent() -> None:
    with start_owner() as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        before = ask(owner)
        os.killpg(owner.pid, signal.SIGINT)
        assert owner.stdout.readline() == b"interrupted\n"
        assert ask(owner) == before
        owner.stdin.close()
        assert owner.wait() == 0


MAIN = """
import asyncio, math
from services.runtime.pool import ProcessPool
from services.shop.work import twice

async def main():
    async with ProcessPool.open(1) as pool:
        print(await pool.run(twice, 21), flush=True)

raise SystemExit(asyncio.run(main()))
"""


def test_a_service_run_as_a_module_from_a_path_with_a_space(tmp_path: Path) -> None:
    root = tmp_path / "with a space"
    package = root / "services" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "work.py").write_text("def twice(number):\n    return 2 * number\n")
    # Without a guard, as the services' own: a worker that imported it would start a service.
    (package / "__main__.py").write_text(MAIN)
    # Without the measurement of coverage, which has warnings of its own to print.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment = {**inherited, "PYTHONPATH": f"{root}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "-m", "services.shop"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)
