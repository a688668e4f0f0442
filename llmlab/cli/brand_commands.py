"""The command about brands: how visible they are in the answers of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import brand_tables
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.files import STANDARD_OUTPUT, written_file
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.run_choice import pick_run
from llmlab.client import Client

FORMATS = ("csv", "json")


def brands(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or `latest`.")],
    against: Annotated[str, typer.Option(metavar="RUN", help="An earlier run to compare with.")] = "",
    file_format: Annotated[str, typer.Option("--format", help="Write a file: csv or json.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; standard output if absent, or -.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how visible brands are in a run: mention rates, positions and shares, by prompt and by model."""

    async def command() -> None:
        if file_format and file_format not in FORMATS:
            raise CommandError(f"--format is one of {', '.join(FORMATS)}, not {file_format!r}.", EXIT_USAGE)
        async with connect() as client:
            chosen = await pick_run(client, run_id)
            earlier = (await pick_run(client, against)).run_id if against else ""
            summary = await client.summarize_run_brands(chosen.run_id, baseline_run_id=earlier)
        if file_format or output is not None:
            _write(summary, file_format or "csv", output)
        elif as_json:
            print_json(to_plain(summary))
        else:
            show(summary)
            console.print(brand_tables.nested_table(summary))

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


def _write(summary: run_pb2.SummarizeRunBrandsResponse, file_format: str, output: Path | None) -> None:
    text = brand_tables.csv_text(summary)
    if file_format == "json":
        text = json.dumps(to_plain(summary), ensure_ascii=False, indent=2) + "\n"
    if output is None or str(output) == STANDARD_OUTPUT:
        sys.stdout.buffer.write(text.encode())
        return
    with written_file(output) as file:
        file.write(text.encode())
    hint(f"The brands of {summary.run.run_id} are in {output}")
