"""The make targets say what they do, and the settings' example says what there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tools import env_example

ROOT = Path(__file__).resolve().parents[3]


def test_every_target_has_its_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY:((?:[^\n]*\\\n)*[^\n]*)", makefile, re.MULTILINE)
    targets = set(phony.replace("\\", " ").split())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    printed = subprocess.run(["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in printed.splitlines()[1:]} == targets
    assert {line.split(":")[0] for line in makefile.splitlines() if re.match(r"[a-z0-9-]+:", line)} == targets


def test_setup_names_what_is_missing(tmp_path: Path) -> None:
    # A PATH that holds the shell's own tools, but neither git nor Python.
    for tool in ("sh", "rm", "touch"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    script = str(ROOT / "tools" / "setup.sh")

    def setup() -> str:
        command = [str(tmp_path / "sh"), script]
        done = subprocess.run(command, cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
        assert done.returncode == 1
        return done.stderr

    assert "git is missing" in setup()
    (tmp_path / "git").symlink_to(str(shutil.which("git")))
    assert "Python 3.11, 3.12 or 3.13 is missing" in setup()
    # A Python that can do anything but import venv.
    (tmp_path / "python3").write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n')
    (tmp_path / "python3").chmod(0o755)
    assert "venv module" in setup()


def test_env_example_is_fresh() -> None:
    assert env_example.EXAMPLE_FILE.read_text(encoding="utf-8") == env_example.render(), "run `make env-example`"


def test_env_example_shows_no_secret_and_sets_nothing() -> None:
    lines = env_example.EXAMPLE_FILE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    assert "# LLMLAB_AUTH_SERVICE_KEY=" in lines
    assert "# LLMLAB_GATEWAY_PORT=7410" in lines
