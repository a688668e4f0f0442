"""The command about brands: how visible they are in the answers of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Protocol

import typer

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import brand_tables, brand_trend
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.files import STANDARD_OUTPUT, written_file
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.run_choice import pick_run
from llmlab.client import Client

FORMATS = ("csv", "json")


def brands(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="The run's id, or `latest`; several show how rates moved.")
    ],
    against: Annotated[str, typer.Option(metavar="RUN", help="An earlier run to compare with.")] = "",
    file_format: Annotated[str, typer.Option("--format", help="Write a file: csv or json.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; standard output if absent, or -.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how visible brands are in a run: mention rates, positions and shares, by prompt and by model.

    Of several runs it shows the mention rates, the oldest first, and what changed from each to the next.
    """

    async def command() -> None:
        if file_format and file_format not in FORMATS:
            raise CommandError(f"--format is one of {', '.join(FORMATS)}, not {file_format!r}.", EXIT_USAGE)
        if against and len(run_ids) > 1:
            raise CommandError("--against compares one run; several runs are compared with each other.", EXIT_USAGE)
        async with connect() as client:
            chosen = [await pick_run(client, run_id) for run_id in run_ids]
            if len(chosen) > 1:
                shown: _Shown = _Trend(await brand_trend.gather(client, chosen))
            else:
                earlier = (await pick_run(client, against)).run_id if against else ""
                shown = _OneRun(await client.summarize_run_brands(chosen[0].run_id, baseline_run_id=earlier))
        if file_format or output is not None:
            _write(shown, file_format or "csv", output)
        elif as_json:
            print_json(shown.plain())
        else:
            shown.show()

    run_async(command())


def show(summary: run_pb2.SummarizeRunBrandsResponse) -> None:
    """Prints the brand table and what has to be known to read it."""
    console.print(brand_tables.brand_table(summary))
    hint("Mentioned: answers that name the brand. Position: rank of its first mention, where it is mentioned.")
    hint("Shares: of all brands' mentions; of all brands' answers. Below a figure: its 95 % interval.")
    if summary.domains:
        hint(f"Cited domains (answers): {brand_tables.domains_text(summary.domains)}")


async def conclude(client: Client, run_id: str) -> None:
    """Shows a run's brands below its closing table."""
    show(await client.summarize_run_brands(run_id))
    hint(f"`llmlab brands {run_id}` has them by prompt and model; --against RUN compares with an earlier run.")


class _Shown(Protocol):
    """What the command found, for each way to give it out."""

    subject: str

    def plain(self) -> object: ...

    def csv_text(self) -> str: ...

    def show(self) -> None: ...


class _OneRun:
    """The brands of a run."""

    def __init__(self, summary: run_pb2.SummarizeRunBrandsResponse) -> None:
        self._summary = summary
        self.subject = summary.run.run_id

    def plain(self) -> object:
        return to_plain(self._summary)

    def csv_text(self) -> str:
        return brand_tables.csv_text(self._summary)

    def show(self) -> None:
        show(self._summary)
        console.print(brand_tables.nested_table(self._summary))


class _Trend:
    """The brands of several runs."""

    def __init__(self, trend: brand_trend.Trend) -> None:
        self._trend = trend
        self.subject = f"{len(trend.steps)} runs"

    def plain(self) -> object:
        return brand_trend.plain(self._trend)

    def csv_text(self) -> str:
        return brand_trend.csv_text(self._trend)

    def show(self) -> None:
        console.print(brand_trend.trend_table(self._trend))
        hint("Change: since the run above, in percentage points. Its interval is wide enough for all brands together;")
        hint("where it holds 0 the change is within noise. The more runs, the likelier one of them differs by chance.")


def _write(shown: _Shown, file_format: str, output: Path | None) -> None:
    text = shown.csv_text()
    if file_format == "json":
        text = json.dumps(shown.plain(), ensure_ascii=False, indent=2) + "\n"
    if output is None or str(output) == STANDARD_OUTPUT:
        sys.stdout.buffer.write(text.encode())
        return
    with written_file(output) as file:
        file.write(text.encode())
    hint(f"The brands of {shown.subject} are in {output}")
