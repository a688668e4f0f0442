"""Child processes: modules of the tests, and children that end with the process that started them."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]

# Like `python -m`, but `tests` is this tree even where an installed package brings a top-level `tests` of its own
# (textstat does), which would win over a directory without __init__.py.
_RUN_TEST_MODULE = """
import runpy, sys, types
package = types.ModuleType("tests")
package.__path__ = [sys.argv.pop(1)]
sys.modules["tests"] = package
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""

_PR_SET_PDEATHSIG = 1


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module under tests/ ("tests.support.keeper") in a Python of its own."""
    return [sys.executable, "-c", _RUN_TEST_MODULE, str(TESTS), str(TESTS.parent), module, *arguments]


def start_child(command: Sequence[str], *, on_parent_death: signal.Signals, **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen` of a child that gets `on_parent_death` when this process ends (Linux only)."""
    # Between fork and exec it makes one bare call, which is safe beside threads.
    return subprocess.Popen(command, preexec_fn=_ask_for_signal(on_parent_death), **options)  # noqa: PLW1509


def _ask_for_signal(number: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    # Loaded before the fork: between fork and exec only the bare call is safe.
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)

    return ask
