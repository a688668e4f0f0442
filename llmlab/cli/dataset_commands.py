"""Commands about datasets that several studies use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from llmlab.cli.app import AsJson, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.saved import DATASETS, find_id, saved_commands, tell_created
from llmlab.cli.studies import from_value, load_rows
from llmlab.cli.tables import empty_table

datasets = saved_commands(DATASETS, "Keep datasets that several studies use")
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's id or name.")]
Shown = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many to show.")]


@datasets.command("show", epilog="Example: llmlab datasets show capitals --limit 5")
def show_dataset(dataset: Dataset, limit: Shown = 20, as_json: AsJson = False) -> None:
    """Show rows of a dataset, the first ones first; --json shows all."""

    async def command() -> None:
        async with connect() as client:
            found = await client.get_dataset(await find_id(client, DATASETS, dataset))
        if as_json:
            print_json(to_plain(found))
            return
        rows = found.rows[:limit]
        columns = sorted({name for row in rows for name in row.columns})
        table = empty_table(escape(f"{found.name} ({found.dataset_id})"), [(escape(name), False) for name in columns])
        for row in rows:
            cells = [from_value(row.columns[name]) if name in row.columns else "" for name in columns]
            table.add_row(*(escape(str(cell)) for cell in cells))
        console.print(table)
        if len(rows) < found.row_count:
            hint(f"{len(rows):,} of {found.row_count:,} rows; --limit shows more.")

    run_async(command())


@datasets.command("create", epilog="Example: llmlab datasets create examples/capitals.csv --name capitals")
def create_dataset(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows: .csv with a header line, or .jsonl.")],
    name: Annotated[str, typer.Option(help="Its name; the file's where left out.")] = "",
    as_json: AsJson = False,
) -> None:
    """Create a dataset from a file, or find the one with the same rows.

    A study takes a copy with `dataset: {saved: NAME}`, each time that it is run.
    """

    async def command() -> None:
        rows = load_rows(file)
        async with connect() as client:
            answer = await client.create_dataset(name or file.stem, rows)
        taken_with = f"`dataset: {{saved: {answer.dataset.name}}}`"
        tell_created(DATASETS, answer, answer.dataset, taken_with, as_json=as_json)

    run_async(command())
