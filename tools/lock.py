"""Makes requirements.txt: every package of every extra with its hashes, for Python 3.11 - 3.13 on every platform.

Beside it requirements-services.txt, the part of it that the image holds: no tool that tests or builds.
The files name no index, no local directory and no machine: whoever installs from them uses the index of their own.
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
SERVICES_LOCK_FILE = "requirements-services.txt"
EXTRAS_OF_THE_IMAGE = ("--extra", "services", "--extra", "tracing")
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
    """Resolves anew; keeps the versions that the present files name where they still fit, unless --upgrade is given."""
    _compile(LOCK_FILE, "--all-extras", *sys.argv[1:])
    # The same versions, whatever the index offers meanwhile.
    _compile(SERVICES_LOCK_FILE, *EXTRAS_OF_THE_IMAGE, "--constraints", LOCK_FILE, "--upgrade")
    status = 0
    for name in (LOCK_FILE, SERVICES_LOCK_FILE):
        named = places_in((ROOT / name).read_text())
        if named:
            print(f"{name} names places:", *named, sep="\n  ", file=sys.stderr)
            status = 1
    return status


def _compile(output: str, *arguments: str) -> None:
    command = [uv_binary(), "--no-config", "pip", "compile", "pyproject.toml", "--universal"]
    command += ["--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-annotate", "--no-emit-index-url"]
    command += ["--custom-compile-command", "make lock", "--quiet", "--output-file", output, *arguments]
    # The machine's own indexes and wheel directories stay out of it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)  # noqa: S603 (its own constants)


if __name__ == "__main__":
    raise SystemExit(main())
