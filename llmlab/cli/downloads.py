"""Exports into files, with progress; one that breaks leaves what it has, and is taken up by the next one."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.app import EXIT_USAGE, CommandError, hint, notes
from llmlab.cli.files import replaceable
from llmlab.cli.progress import cells_ended
from llmlab.client import Client, LlmlabError

FORMATS = {
    "csv": run_pb2.EXPORT_FORMAT_CSV,
    "json": run_pb2.EXPORT_FORMAT_JSON,
    "jsonl": run_pb2.EXPORT_FORMAT_JSON_LINES,
    "parquet": run_pb2.EXPORT_FORMAT_PARQUET,
}
REFUSED = frozenset({"WRONG_STATE", "INVALID_PAGE_TOKEN"})
"""Reasons why an export can't be taken up, and has to begin again."""


@dataclass(frozen=True, slots=True)
class Begun:
    """How far a broken export into a file had come."""

    run_id: str
    file_format: str
    score_set: str
    bytes: int
    results: int
    resume_token: str


class Download:
    """The two files beside the one to be written: what has come (`.part`), and how it goes on (`.resume`)."""

    def __init__(self, path: Path, run_id: str, file_format: str, score_set: str) -> None:
        """Raises CommandError where the path is no file."""
        self._path = replaceable(path)
        self._part = self._path.with_name(self._path.name + ".part")
        self._note = self._path.with_name(self._path.name + ".resume")
        self._run_id = run_id
        self.file_format = file_format
        self.score_set = score_set

    def begun(self) -> Begun | None:
        """What a broken export of the same run and format has left, as far as it can be trusted."""
        try:
            begun = Begun(**json.loads(self._note.read_text("utf-8")))
            mine = (self._run_id, self.file_format, self.score_set)
            usable = (begun.run_id, begun.file_format, begun.score_set) == mine
            return begun if usable and self._part.stat().st_size >= begun.bytes else None
        except (OSError, ValueError, TypeError):
            return None

    def open(self, begun: Begun | None) -> BinaryIO:
        """The file that has come so far, cut behind the last whole result; empty where nothing has."""
        if begun is None:
            self._note.unlink(missing_ok=True)
            return self._part.open("wb")
        file = self._part.open("r+b")
        file.truncate(begun.bytes)
        file.seek(begun.bytes)
        return file

    def note(self, file: BinaryIO, piece: run_pb2.ExportResultsResponse) -> None:
        """Notes how the export goes on behind what has just been written."""
        file.flush()
        begun = Begun(
            run_id=self._run_id,
            file_format=self.file_format,
            score_set=self.score_set,
            bytes=file.tell(),
            results=piece.results,
            resume_token=piece.resume_token,
        )
        fresh = self._note.with_name(self._note.name + ".new")
        fresh.write_text(json.dumps(asdict(begun)), "utf-8")
        fresh.replace(self._note)

    def finish(self) -> None:
        """Gives the whole file its name."""
        self._part.replace(self._path)
        self._note.unlink(missing_ok=True)


async def download(client: Client, run: run_pb2.Run, file_format: str, path: Path, score_set: str) -> int:
    """Writes an export into a file, behind what a broken one has left, and returns how many results it has.

    Raises:
        CommandError: The file can't be written.
        LlmlabError: The export is refused, or breaks; what has come is kept.
    """
    files = Download(path, run.run_id, file_format, score_set)
    begun = files.begun()
    try:
        with suppress(_BeginAgain):
            return await _write(client, run, files, begun)
        hint("The results have changed since the broken export; it begins again.")
        return await _write(client, run, files, None)
    except OSError as error:
        raise CommandError(f"{path}: can't be written ({error.strerror}).", EXIT_USAGE) from error


def _progress() -> Progress:
    size = TextColumn("{task.fields[size]}")
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), size)
    return Progress(*columns, console=notes, disable=not notes.is_terminal)


class _BeginAgain(Exception):
    """A broken export can't be taken up."""


async def _write(client: Client, run: run_pb2.Run, files: Download, begun: Begun | None) -> int:
    written = begun.results if begun else 0
    if begun:
        hint(f"Going on behind {begun.results:,} results of a broken export.")
    with files.open(begun) as file, _progress() as progress:
        task = progress.add_task("results", total=cells_ended(run.statistics), completed=written, size="")
        pieces = client.export_results(
            run_id=run.run_id,
            file_format=FORMATS[files.file_format],
            score_set=files.score_set,
            resume_token=begun.resume_token if begun else "",
        )
        try:
            async for piece in pieces:
                file.write(piece.data)
                written = piece.results
                if piece.resume_token:
                    files.note(file, piece)
                progress.update(task, completed=written, size=f"{file.tell() / 1e6:,.1f} MB")
        except LlmlabError as error:
            if begun and error.reason in REFUSED:
                raise _BeginAgain from error
            raise
    files.finish()
    return written
