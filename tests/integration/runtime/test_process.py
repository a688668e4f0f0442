"""A service as a process of its own: exit codes, signals, one clear line."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.echo import SERVICE_KEY, EchoSettings
from tests.support.processes import module_command, start_child

COMMAND = module_command("tests.support.echo_service")
TIMEOUT_S = 60


def environment(home: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    own = {"LLMLAB_HOME": str(home), "LLMLAB_ECHO_PORT": "0", "LLMLAB_AUTH_SERVICE_KEY": SERVICE_KEY}
    return {**inherited, **own, **more}


def run(home: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(COMMAND, env=environment(home, **more), capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("LLMLAB_ECHO_PORT", "eighty", "echo: LLMLAB_ECHO_PORT: Input should be a valid integer"),
        ("LLMLAB_GRACE_S", "-1", "echo: LLMLAB_GRACE_S: Input should be greater than 0"),
        ("LLMLAB_AUTH_SERVICE_KEY", "", "echo: LLMLAB_ECHO_AUTH_SERVICE_KEY: is not set"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_code_2(tmp_path: Path, variable: str, value: str, line: str) -> None:
    ended = run(tmp_path, **{variable: value})

    assert ended.returncode == 2
    assert ended.stderr.startswith(line)
    assert ended.stderr.count("\n") == 1


def test_help_tells_every_setting_and_needs_none(tmp_path: Path) -> None:
    command = [*COMMAND, "--help"]
    told = subprocess.run(command, env={"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=TIMEOUT_S)

    assert (told.returncode, told.stderr) == (0, "")
    variables = [line.partition("=")[0] for line in told.stdout.splitlines() if line.startswith("LLMLAB_")]
    assert variables == [EchoSettings.variable(name) for name in EchoSettings.model_fields]
    assert SERVICE_KEY not in told.stdout


def test_a_taken_port_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run(tmp_path, LLMLAB_ECHO_PORT=str(taken.getsockname()[1]))

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()  # and none of gRPC's own
    assert line.startswith("echo: LLMLAB_ECHO_PORT: cannot listen on 127.0.0.1:")


def test_what_cannot_be_had_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    ended = run(tmp_path, ECHO_DATABASE="down")

    assert ended.returncode == 1
    assert ended.stderr == "echo: DEPENDENCY_UNAVAILABLE: no database at postgresql://me:[redacted]@db\n"


def test_the_slow_protobuf_is_refused(tmp_path: Path) -> None:
    ended = run(tmp_path, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python")

    assert ended.returncode == 2
    assert "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    process = start_child(
        COMMAND,
        on_parent_death=signal.SIGKILL,
        env=environment(tmp_path, LLMLAB_LOG_FORMAT="json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()

    assert first.startswith(b"echo serves on 127.0.0.1:"), errors
    assert process.returncode == 0, errors
    assert rest == b"closed\n"
    assert b'"message": "echo has stopped"' in errors
