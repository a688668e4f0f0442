"""The lock of a home, which holds the SQLite files of all services.

`llmlab` has it alone while it runs all services in its process; services that are started by themselves share it. So
neither starts on files that the other is at work on.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.runtime.settings import ServiceSettings, SettingsError

LOCK_FILE = "lock"
SERVICE = "service"
"""In the lock file, beside the process id: it is shared (llmlab/cli/embedded.py reads it)."""


@contextmanager
def shared_home(settings: ServiceSettings) -> Iterator[None]:
    """Hold the lock together with other services. Does nothing where this very process has it alone.

    Raises SettingsError where an `llmlab` command has it, or where it cannot be made.
    """
    home = settings.home_directory
    try:
        descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsError(f"{settings.variable('home')}: {home} cannot be used: {error.strerror}") from None
    try:
        _share(descriptor, home, settings.variable("home"))
        yield
    finally:
        os.close(descriptor)


def _share(descriptor: int, home: Path, variable: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 64, 0).decode(errors="replace").partition(" ")[0] or "unknown"
        if holder == str(os.getpid()):
            return
        raise SettingsError(
            f"{variable}: the command llmlab (process {holder}) runs services of its own on {home}; wait for its end, "
            "or choose another directory"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()} {SERVICE}".encode(), 0)
