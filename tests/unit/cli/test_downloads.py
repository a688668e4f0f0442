"""Exports into files: what a broken one leaves, and what of it is used again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.app import CommandError
from llmlab.cli.downloads import Download, download
from llmlab.client import LlmlabError

RUN = run_pb2.Run(run_id="run_1")
LINES = [b"a\n", b"bb\n", b"ccc\n"]


class Exports:
    """A client whose export breaks behind so many pieces."""

    def __init__(self) -> None:
        self.breaks_behind = 99
        self.asked: list[str] = []

    async def export_results(
        self, *, run_id: str, file_format: int, score_set: str, resume_token: str
    ) -> AsyncIterator[run_pb2.ExportResultsResponse]:
        self.asked.append(resume_token)
        for number in range(int(resume_token or 0), len(LINES)):
            if number == self.breaks_behind:
                raise LlmlabError("gone", reason="DEPENDENCY_UNAVAILABLE", code="UNAVAILABLE")
            token = str(number + 1) if number + 1 < len(LINES) else ""
            yield run_pb2.ExportResultsResponse(data=LINES[number], results=number + 1, resume_token=token)


async def test_a_broken_export_is_taken_up_behind_its_last_whole_piece(tmp_path: Path) -> None:
    client, target = Exports(), tmp_path / "out.csv"
    client.breaks_behind = 2
    with pytest.raises(LlmlabError):
        await download(client, RUN, "csv", target, "")  # type: ignore[arg-type]  # it needs one method of the client
    assert not target.exists()
    with (tmp_path / "out.csv.part").open("ab") as part:
        part.write(b"half a res")
    client.breaks_behind = 99
    assert await download(client, RUN, "csv", target, "") == 3  # type: ignore[arg-type]  # as above
    assert client.asked == ["", "2"]
    assert target.read_bytes() == b"".join(LINES)
    assert not (tmp_path / "out.csv.part").exists()
    assert not (tmp_path / "out.csv.resume").exists()


@pytest.mark.parametrize(
    "note",
    [
        "no json",
        "[]",
        '{"run_id": "run_2", "file_format": "csv", "score_set": "", "bytes": 1, "results": 1, "resume_token": "1"}',
        '{"run_id": "run_1", "file_format": "json", "score_set": "", "bytes": 1, "results": 1, "resume_token": "1"}',
        '{"run_id": "run_1", "file_format": "csv", "score_set": "b", "bytes": 1, "results": 1, "resume_token": "1"}',
        '{"run_id": "run_1", "file_format": "csv", "score_set": "", "bytes": 9999, "results": 1, "resume_token": "1"}',
    ],
)
def test_what_does_not_belong_to_the_export_is_not_used(tmp_path: Path, note: str) -> None:
    (tmp_path / "out.csv.part").write_bytes(b"abc")
    (tmp_path / "out.csv.resume").write_text(note)
    assert Download(tmp_path / "out.csv", "run_1", "csv", "").begun() is None


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        Download(tmp_path, "run_1", "csv", "")
