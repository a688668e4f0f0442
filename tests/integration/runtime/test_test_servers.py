"""The servers that the tests start end with pytest, however pytest ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]

SESSION = "tests/support/waiting_session.py"


@pytest.fixture
def inner() -> "subprocess.Popen[str]":
    """A pytest that starts a server of its own and then waits for its standard input to end."""
    if os.environ.get("LLMLAB_TEST_POSTGRES_URL"):
        pytest.skip("no server is started where a URL is given")
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", SESSION],
        cwd=REPOSITORY,
        # The inner session is one of its own, whichever worker of xdist runs this test.
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def socket_of(inner: "subprocess.Popen[str]") -> Path:
    assert inner.stdout is not None
    for line in inner.stdout:
        _, ready, url = line.partition("READY ")
        if ready:
            return Path(url.strip().partition("host=")[2].replace("%2F", "/"))
    raise AssertionError("the inner pytest ended before its test ran")


def wait_until_gone(directory: Path) -> None:
    # pytest-timeout bounds it.
    while directory.exists():
        time.sleep(0.02)


@pytest.mark.parametrize("kill", [False, True])
def test_the_server_ends_with_its_session(inner: "subprocess.Popen[str]", kill: bool) -> None:
    with inner:
        server = socket_of(inner)
        assert server.exists()
        if kill:
            inner.send_signal(signal.SIGKILL)
        else:
            assert inner.stdin is not None
            inner.stdin.close()
        inner.wait()
        if not kill:
            assert inner.returncode == 0
            assert not server.exists()
        wait_until_gone(server.parent)
