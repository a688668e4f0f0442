"""Where files that commands write may be put."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmlab.cli.app import CommandError
from llmlab.cli.downloads import Download
from llmlab.cli.files import written_file


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/file")
    with written_file(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"


def test_a_pipe_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(CommandError, match="a pipe"):
        written_file(pipe).__enter__()
    with pytest.raises(CommandError, match="a pipe"):
        Download(pipe, "run_1", "csv", "")
    assert pipe.is_fifo()


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    (tmp_path / "file").touch()
    for path, why in ((tmp_path / "one", "leads nowhere"), (tmp_path / "file" / "x", "Not a directory")):
        with pytest.raises(CommandError, match=why):
            written_file(path).__enter__()


def test_what_breaks_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def broken() -> None:
        with written_file(file) as begun:
            begun.write(b"ne")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"
