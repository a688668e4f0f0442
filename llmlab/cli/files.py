"""Files that commands write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llmlab.cli.app import EXIT_USAGE, CommandError

STANDARD_OUTPUT = "-"


def replaceable(path: Path) -> Path:
    """Returns the file that a finished one may take the place of: the one behind links, so that these stay.

    Raises:
        CommandError: There is something else, which has to stay what it is.
    """
    if path.is_dir():
        raise CommandError(f"{path} is a folder; name a file.", EXIT_USAGE)
    if path.exists() and not path.is_file():
        raise CommandError(f"{path} is a device or a pipe, and a file would take its place; name a file.", EXIT_USAGE)
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise CommandError(f"{path}: leads nowhere ({error}).", EXIT_USAGE) from error


@contextmanager
def written_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name when it is whole: a broken export leaves none that looks complete.

    Raises:
        CommandError: It can't be written.
    """
    target = replaceable(path)
    partial = target.with_name(target.name + ".part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(target)
    except OSError as error:
        raise CommandError(f"{path}: can't be written ({error.strerror}).", EXIT_USAGE) from error
    finally:
        with suppress(OSError):
            partial.unlink()
