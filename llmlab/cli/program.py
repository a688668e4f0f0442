"""How this command was started, so that the next steps that it names can be copied."""

from __future__ import annotations

import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

_NAME = "llmlab"


@cache
def program() -> str:
    """Returns what to type for this command: "llmlab", ".venv/bin/llmlab" or "python -m llmlab.cli"."""
    return program_of(sys.argv[0], sys.orig_argv[0])


def program_of(script: str, interpreter: str) -> str:
    """Returns what to type for a command whose process has this script (sys.argv[0]) and interpreter, as typed."""
    if Path(script).name != _NAME:  # a module: Python replaces its name by the path of its file
        return f"{shlex.quote(interpreter)} -m llmlab.cli"
    found = shutil.which(_NAME)
    if found and Path(found).resolve() == Path(script).resolve():
        return _NAME
    return shlex.quote(script)


def spelled(text: str) -> str:
    """Writes each `llmlab ...` of a text as this command was started."""
    return text.replace(f"`{_NAME} ", f"`{program()} ")
