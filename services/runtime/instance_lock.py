"""One process at a time for a file: the lock that keeps two installations from sharing a home by accident."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.runtime.settings import SettingsError


@contextmanager
def instance_lock(path: Path) -> Iterator[None]:
    """Hold `<path>.lock` inside the `with` block; the kernel releases it when the process ends, however it ends.

    Raises SettingsError when another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            message = (
                f"LLMLAB_HOME: {path} is in use by another process (id {holder}); stop that one, or set LLMLAB_HOME to "
                "another directory"
            )
            raise SettingsError(message) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
