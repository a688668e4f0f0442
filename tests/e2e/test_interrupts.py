"""A command that is told to end, or whose output goes nowhere."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import ROOT, TIMEOUT_S, command_environ, llmlab
from tests.support.processes import start_child

STUDY = """
name: slow
prompts: [{name: one, user: "Say {{n}}."}]
dataset: {rows: [{n: 1}, {n: 2}, {n: 3}, {n: 4}]}
models: [mock/small]
repeats: 10
limits: {concurrency: 4}
"""
COSTLY = STUDY.replace("mock/small", "mock/large").replace("repeats: 10", "repeats: 2000")
SLOW: dict[str, Any] = {"LLMLAB_GATEWAY_MOCK_TTFT_MS": "1000"}


@contextmanager
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`llmlab run` of a study that takes 10 s, once the run has started."""
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    command = [sys.executable, "-m", "llmlab.cli", "run", str(study)]
    environ = command_environ(tmp_path / "home", **SLOW)
    with start_child(command, on_parent_death=signal.SIGKILL, cwd=ROOT, env=environ, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"40 cells" in process.stderr.readline()
        time.sleep(1.5)  # for the first answers; nothing that is asserted depends on there being some
        yield process


def ended(home: Path) -> tuple[str, int]:
    """The state of the only run and how many of its cells are done, as a command tells that works for none."""
    (run,) = llmlab("runs", "--json", home=home, **SLOW).json()
    return run["status"], int(run["statistics"].get("cells_done", 0))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_waits_until_it_is_asked_for(tmp_path: Path, number: signal.Signals, status: int) -> None:
    home = tmp_path / "home"
    with running(tmp_path) as process:
        process.send_signal(number)
        _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == status
    assert b"watch run_" in told
    assert b"Traceback" not in told
    state, done = ended(home)
    assert state in ("PENDING", "RUNNING")
    assert done < 40
    assert ended(home) == (state, done), "commands that only show call no model"
    if number == signal.SIGINT:
        finished = llmlab("watch", "latest", home=home)
        assert finished.exit_code == 0, finished.notes
        assert ended(home) == ("COMPLETED", 40), "nothing was lost"
    else:
        assert "cancelled" in llmlab("cancel", "latest", home=home, **SLOW).notes
        assert ended(home) == ("CANCELLED", done), "nothing was called on the way to the cancel"


def test_what_is_declined_or_cancelled_leaves_other_unfinished_runs_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
    before = ended(home)
    costly = tmp_path / "costly.yaml"
    costly.write_text(COSTLY)
    declined = llmlab("run", str(costly), home=home, stdin="n\n", **SLOW)
    assert "Nothing was called" in declined.notes
    assert ended(home) == before
    with running(tmp_path) as process:
        process.kill()
        process.wait(TIMEOUT_S)
    (_, first) = llmlab("runs", "--json", home=home, **SLOW).json()
    assert "cancel" in llmlab("cancel", "latest", home=home, **SLOW).notes
    (_, later) = llmlab("runs", "--json", home=home, **SLOW).json()
    # The second run's worker took up the first as well; its cancel did not.
    assert later["statistics"] == first["statistics"]


def test_a_signal_at_a_question_is_its_answer(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(COSTLY)
    command = [sys.executable, "-m", "llmlab.cli", "run", str(study)]
    for number in (signal.SIGINT, signal.SIGTERM):
        with start_child(
            command, on_parent_death=signal.SIGKILL, cwd=ROOT, env=command_environ(tmp_path / "home"),
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            told = b""
            while b"[y/N]" not in told:
                told += os.read(process.stderr.fileno(), 4096)
            process.send_signal(number)
            told, _ = process.stderr.read(), process.wait(TIMEOUT_S)
        assert process.returncode == 128 + number
        assert told.decode().strip() == "Interrupted."
    assert llmlab("runs", "--json", home=tmp_path / "home").json() == []


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        # It takes a second to end in order; the other signal comes while it does.
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode in (130, 143)
    assert b"Left at once" in told
    assert b"Traceback" not in told
    assert b"leaked" not in told
    assert llmlab("watch", "latest", home=tmp_path / "home").exit_code == 0


def test_output_that_has_no_room_is_one_clear_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmlab.cli", "models"]
    environ = command_environ(tmp_path)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=ROOT, env=environ, stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "error: The output: No space left on device\n"


def test_closed_streams_and_narrow_encodings_are_no_errors(tmp_path: Path) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m llmlab.cli models"
    environ = command_environ(tmp_path, PYTHONIOENCODING="ascii")
    name = ["budgets", "create", "--limit", "1usd", "--name", "Blüte", "--json"]
    printed = llmlab(*name, home=tmp_path, PYTHONIOENCODING="ascii")
    assert "Bl\\u00fcte" in printed.output, "nothing of it is lost"
    for closed in ("", "<&- >&-", ">&- 2>&-"):
        done = subprocess.run(
            ["/bin/sh", "-c", f"{command} {closed}"], cwd=ROOT, env=environ, capture_output=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b""), closed
