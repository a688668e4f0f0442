"""Makes requirements.txt: every package of every extra with its hashes, for Python 3.11 - 3.13 on every platform.

The file names no index, no local directory and no machine: whoever installs from it uses the index of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK_FILE = "requirements.txt"
OLDEST_PYTHON = "3.11"

# What would tie the file to the machine that made it.
_PLACES = re.compile(r"(^|\s)(--(index-url|extra-index-url|find-links)|file:|https?:)|\s@\s", re.MULTILINE)


def places_in(text: str) -> list[str]:
    """The lines that name an index, an address or a local path."""
    return [line for line in text.splitlines() if _PLACES.search(line) and not line.startswith("#")]


def uv_binary() -> str:
    """The `uv` of the environment, or the one on the PATH."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise SystemExit("uv is missing: run `make setup`")
    return found


def main() -> int:
    """Resolves anew; keeps the versions that the present file names where they still fit, unless --upgrade is given."""
    command = [uv_binary(), "--no-config", "pip", "compile", "pyproject.toml", "--all-extras", "--universal"]
    command += ["--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-annotate", "--no-emit-index-url"]
    command += ["--custom-compile-command", "make lock", "--quiet", "--output-file", LOCK_FILE, *sys.argv[1:]]
    # The machine's own indexes and wheel directories stay out of it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)  # noqa: S603 (its own constants)
    named = places_in((ROOT / LOCK_FILE).read_text())
    if named:
        print(f"{LOCK_FILE} names places:", *named, sep="\n  ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
