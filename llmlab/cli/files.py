"""Files that commands write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmlab.cli.app import EXIT_USAGE, CommandError

STANDARD_OUTPUT = "-"


@contextmanager
def written_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name when it is whole: a broken export leaves none that looks complete.

    Raises:
        CommandError: It can't be written.
    """
    if path.is_dir():
        raise CommandError(f"{path} is a folder; name a file.", EXIT_USAGE)
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise CommandError(f"{path}: can't be written ({error.strerror}).", EXIT_USAGE) from error
    finally:
        partial.unlink(missing_ok=True)
