"""ExportResults: files of any size, in pieces of bounded size, each of which says how to go on behind it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final, NamedTuple

from llmlab.api.orchestrator.v1 import run_pb2 as pb
from services.orchestrator.exports import CsvWriter, ExportWriter, JsonLinesWriter, JsonWriter
from services.orchestrator.parquet import ParquetWriter
from services.orchestrator.records import RunRecord
from services.orchestrator.rpc.result_messages import export_row, scores_of
from services.orchestrator.rpc.result_reading import FULL_PAGE, Filter, ResultReader
from services.orchestrator.spec_view import SpecView
from services.orchestrator.store import Bodies, ResultQuery, SqlLedger, StoredResult
from services.orchestrator.values import Value
from services.runtime.context import current_principal
from services.runtime.errors import WrongState
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

CHUNK_BYTES: Final = 256 * 1024


class _Place(NamedTuple):
    """How far an export has come: the run, its last cell, its last sequence when it was reached, and rows written.

    A format that can only be made from its beginning notes the newest run instead, and length and digest of the bytes
    before.
    """

    run_id: str = ""
    cell: int = -1
    sequence_max: int = 0
    written: int = 0
    columns: str = ""
    offset: int = 0
    digest: str = ""


class Exporter:
    """Streams files of results."""

    def __init__(self, ledger: SqlLedger, reader: ResultReader, *, guard_formulas: bool) -> None:
        """`guard_formulas`: CSV cells that a spreadsheet would run as a formula get a quote in front."""
        self._ledger = ledger
        self._reader = reader
        self._guard_formulas = guard_formulas

    async def export(self, request: pb.ExportResultsRequest) -> AsyncGenerator[pb.ExportResultsResponse, None]:
        """The pieces of a file, or those behind a resume token.

        Raises InvalidField, NotFound, and WrongState where the results no longer give the file that was begun.
        """
        chosen = Filter(request.filter)
        project_id = current_principal().project_id
        fingerprint = filter_fingerprint("ExportResults", project_id, request.format, *chosen.parts)
        token = decode_page_token(fingerprint, request.resume_token, "resume_token")
        begun = _place(token) if token else None
        runs = await self._reader.runs(chosen)
        parameters, scores = await self._columns(runs, chosen.score_set)
        columns = hashlib.blake2b(repr((list(parameters), scores)).encode(), digest_size=8).hexdigest()
        if begun and begun.columns != columns:
            raise _changed()
        writer = self._writer(request.format, parameters, scores, is_first=begun is None or not begun.written)
        replays = request.format == pb.EXPORT_FORMAT_PARQUET
        file = _File(fingerprint, columns, begun, replays=replays)
        for piece in file.pieces(b"" if begun and not replays else writer.begin()):
            yield piece
        async for place, data in self._rows(runs, chosen, writer, begun, replays=replays):
            for piece in file.pieces(data, place):
                yield piece
        for piece in file.pieces(await asyncio.to_thread(writer.end), is_last=True):
            yield piece

    async def _rows(
        self, runs: Sequence[RunRecord], chosen: Filter, writer: ExportWriter, begun: _Place | None, *, replays: bool
    ) -> AsyncIterator[tuple[_Place, bytes]]:
        """What each page of results adds to the file, and the place behind it."""
        written = begun.written if begun and not replays else 0
        newest: _Place | None = None
        for run in runs:
            # Newest first: what is newer than the run of the token came later, or has been written.
            if begun and run.run_id > begun.run_id:
                continue
            here = begun if begun and run.run_id == begun.run_id else None
            sequence_max = here.sequence_max if here else run.last_sequence
            query = ResultQuery(run.run_id, limit=FULL_PAGE, sequence_max=sequence_max, bodies=Bodies.ALL)
            if here and not replays:
                query = query.behind_cell(here.cell)
            async for page, view in self._reader.stored_pages(run, chosen, query):
                data = await asyncio.to_thread(_encoded, writer, page, view)
                written += len(page)
                newest = newest or _Place(run.run_id, sequence_max=sequence_max)
                place = newest if replays else _Place(run.run_id, page[-1].record.cell, sequence_max)
                yield place._replace(written=written), data

    def _writer(
        self,
        file_format: pb.ExportFormat.ValueType,
        parameters: dict[str, list[Value]],
        scores: list[str],
        *,
        is_first: bool,
    ) -> ExportWriter:
        match file_format:
            case pb.EXPORT_FORMAT_JSON:
                return JsonWriter(is_first=is_first)
            case pb.EXPORT_FORMAT_JSON_LINES:
                return JsonLinesWriter()
            case pb.EXPORT_FORMAT_PARQUET:
                return ParquetWriter(parameters, scores)
            case _:
                return CsvWriter(list(parameters), scores, guard_formulas=self._guard_formulas)

    async def _columns(self, runs: Sequence[RunRecord], score_set: str) -> tuple[dict[str, list[Value]], list[str]]:
        """The parameters of all runs with their values, and the names of scores, each as it comes first."""
        parameters: dict[str, list[Value]] = {}
        scores: dict[str, None] = {}
        for run in runs:
            view = await self._reader.view(run)
            for name, values in view.parameter_values().items():
                parameters.setdefault(name, []).extend(values)
            # All answers of a run have the same scores: one that is scored tells their names.
            query = ResultQuery(run.run_id, limit=1, scored_only=True, score_set=score_set)
            for stored in await self._ledger.page_results(query):
                scores.update(dict.fromkeys(score.name for score in scores_of(stored.bodies.scores)))
        return parameters, list(scores)


class _File:
    """Cuts the bytes of a file into pieces, leaves out what was sent before, and says how to go on."""

    def __init__(self, fingerprint: bytes, columns: str, begun: _Place | None, *, replays: bool) -> None:
        self._fingerprint = fingerprint
        self._columns = columns
        self._digest = hashlib.blake2b(digest_size=16) if replays else None
        self._offset = 0
        self._begun = begun
        self._place = begun if begun and not replays else _Place()
        self._pending = b""

    def pieces(
        self, data: bytes, place: _Place | None = None, *, is_last: bool = False
    ) -> list[pb.ExportResultsResponse]:
        """The pieces that are full, behind the rows that end at `place`; all that is left where it `is_last`."""
        self._pending += self._unsent(data)
        self._place = place or self._place
        if not is_last and len(self._pending) < CHUNK_BYTES:
            return []
        pending, self._pending = self._pending, b""
        cuts = range(0, max(len(pending), 1), CHUNK_BYTES)
        pieces = [
            pb.ExportResultsResponse(data=pending[cut : cut + CHUNK_BYTES], results=self._place.written) for cut in cuts
        ]
        if not is_last:
            digest = self._digest.hexdigest() if self._digest else ""
            here = self._place._replace(columns=self._columns, offset=self._offset, digest=digest)
            pieces[-1].resume_token = encode_page_token(self._fingerprint, here)
        return pieces

    def _unsent(self, data: bytes) -> bytes:
        """What of these bytes has not been sent. Raises WrongState where what was sent is no longer the same."""
        if self._digest is None:
            return data
        skipped = self._begun.offset if self._begun else 0
        known = min(len(data), max(0, skipped - self._offset))
        self._digest.update(data[:known])
        self._offset += known
        if self._begun and known and self._offset == skipped and self._digest.hexdigest() != self._begun.digest:
            raise _changed()
        self._digest.update(data[known:])
        self._offset += len(data) - known
        return data[known:]


def _encoded(writer: ExportWriter, page: Sequence[StoredResult], view: SpecView) -> bytes:
    return writer.rows([export_row(stored, view) for stored in page])


def _place(token: tuple[str | int, ...]) -> _Place:
    run_id, cell, sequence_max, written, columns, offset, digest = token
    return _Place(str(run_id), int(cell), int(sequence_max), int(written), str(columns), int(offset), str(digest))


def _changed() -> WrongState:
    return WrongState(
        "WRONG_STATE", "the results have changed since this export was begun; begin it again without resume_token"
    )
