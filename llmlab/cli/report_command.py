"""The command that writes a run's report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmlab import __version__
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.app import AsJson, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.files import written_file
from llmlab.cli.options import Scores
from llmlab.cli.plain import print_json
from llmlab.cli.report.figures_of_run import RunFigures
from llmlab.cli.report.page import beginning, end
from llmlab.cli.report.responses import ResponseBlocks
from llmlab.cli.run_choice import pick_run
from llmlab.client import Client

RESPONSES_MAX = 20_000


def report(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or `latest`.")] = "latest",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; RUN.html in this folder if absent.")
    ] = None,
    responses: Annotated[
        int, typer.Option(min=1, max=200_000, help="At most so many answers are in the file; figures count all.")
    ] = RESPONSES_MAX,
    scores: Scores = "",
    as_json: AsJson = False,
) -> None:
    """Write a run's report: one HTML file that opens anywhere, offline.

    It has the ranking, quality against cost, latencies, brands, failures and every answer.
    """

    async def command() -> None:
        async with connect() as client:
            run = await pick_run(client, run_id)
            path = output or Path(f"{run.run_id}.html")
            written = await write_report(client, run, path, responses, scores)
        if as_json:
            print_json({"run_id": run.run_id, "file": str(path), "responses": written})
        else:
            hint(f"The report of {run.run_id} is in {path} ({written:,} answers); open it in a browser.")

    run_async(command())


async def write_report(client: Client, run: run_pb2.Run, path: Path, responses_max: int, score_set: str = "") -> int:
    """Writes the report and returns how many answers it has; memory holds one block of them at a time."""
    summary = await client.summarize_run(run.run_id, score_set=score_set)
    brands = await client.summarize_run_brands(run.run_id) if summary.has_brands else None
    figures = RunFigures()
    async for result in client.list_results(run_id=run.run_id, score_set=score_set):
        figures.add(result)
    with written_file(path) as file:
        head = beginning(
            summary, brands, figures, responses_max=responses_max, version=__version__, score_set=score_set
        )
        file.write(head.encode())
        blocks = ResponseBlocks()
        results = client.list_results(run_id=run.run_id, score_set=score_set, full=True)
        async for block in blocks.blocks(results, responses_max):
            file.write(block.encode())
        file.write(end().encode())
    return blocks.written
