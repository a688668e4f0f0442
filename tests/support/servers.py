"""One shared test server of a kind per pytest session, however many xdist workers ask for it.

The first that asks starts a keeper: a process of its own (`python -m tests.support.keeper`) that runs the server,
watches the pytest process of the session, and ends the server and itself when pytest has ended, however it ended.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import module_command

START_TIMEOUT_S = 60.0


def session_directory() -> Path:
    """A directory that all workers of this pytest session share; short, since it holds Unix sockets."""
    in_worker = "PYTEST_XDIST_WORKER" in os.environ
    session_pid = os.getppid() if in_worker else os.getpid()
    root = Path(tempfile.gettempdir())
    if len(str(root)) > 60:
        root = Path("/tmp")
    directory = root / f"llmlab-tests-{os.getuid()}-{session_pid}"
    directory.mkdir(mode=0o755, exist_ok=True)
    return directory


def shared_server_url(kind: str) -> str:
    """The URL of the session's server of that kind ("postgres" or "redis"), started when nobody has yet."""
    directory = session_directory()
    address = directory / f"{kind}.url"
    with _locked(directory / f"{kind}.lock"):
        if not address.exists() or not _lives(directory / f"{kind}.pid"):
            _start_keeper(kind, directory, address)
    return address.read_text()


def end_shared_servers() -> None:
    """For the session's end: tell the keepers to stop and wait until their servers are gone."""
    directory = session_directory()
    for record in directory.glob("*.pid"):
        _terminate(int(record.read_text()))
    shutil.rmtree(directory, ignore_errors=True)


def _start_keeper(kind: str, directory: Path, address: Path) -> None:
    session_pid = directory.name.rpartition("-")[2]
    log = directory / f"{kind}.log"
    address.unlink(missing_ok=True)
    shutil.rmtree(directory / kind, ignore_errors=True)
    with log.open("wb") as output:
        keeper = subprocess.Popen(
            module_command("tests.support.keeper", kind, str(directory), session_pid),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own session: Ctrl-C at the terminal reaches pytest, and the keeper follows when pytest has ended.
            start_new_session=True,
        )
    (directory / f"{kind}.pid").write_text(str(keeper.pid))
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while not address.exists():
        if keeper.poll() is not None or time.monotonic() > give_up_at:
            keeper.kill()
            raise RuntimeError(f"the test server {kind} did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.02)
    # Not this process's child to reap: it may outlive this worker. Without this, Popen warns about it at exit.
    keeper.returncode = 0


def _lives(record: Path) -> bool:
    # False only for what a killed keeper of an older session with the same process id has left behind.
    try:
        os.kill(int(record.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, 15)
        while True:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                os.kill(pid, 0)
            time.sleep(0.02)
    except ProcessLookupError:
        return


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
