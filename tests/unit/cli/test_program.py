"""What a person types for this command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmlab.cli import program


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `llmlab` in a folder that is not on the PATH."""
    file = tmp_path / "a b" / "llmlab"
    file.parent.mkdir()
    file.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    return file


def test_a_command_that_is_not_on_the_path_is_named_as_it_was_typed(script: Path) -> None:
    assert program.program_of(".venv/bin/llmlab", sys.executable) == ".venv/bin/llmlab"
    assert program.program_of(str(script), sys.executable) == f"'{script}'"


def test_a_command_on_the_path_is_named_plainly(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script.parent))
    assert program.program_of(str(script), sys.executable) == "llmlab"
    # Another one of that name is not this one.
    assert program.program_of(".venv/bin/llmlab", sys.executable) == ".venv/bin/llmlab"


def test_a_module_is_named_with_its_interpreter() -> None:
    assert program.program_of("/src/llmlab/cli/__main__.py", ".venv/bin/python") == ".venv/bin/python -m llmlab.cli"


def test_commands_in_a_text_are_spelled_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "program", lambda: ".venv/bin/llmlab")
    assert program.spelled("See `llmlab runs`; llmlab is a name.") == "See `.venv/bin/llmlab runs`; llmlab is a name."
