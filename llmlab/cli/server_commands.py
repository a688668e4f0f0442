"""Commands about the services: demo, up, status, token."""

from __future__ import annotations

import asyncio
from importlib.resources import as_file, files
from typing import Annotated, Any

import typer
from rich.table import Table

from llmlab.api.cost.v1 import spend_pb2
from llmlab.cli import figures
from llmlab.cli.app import EXIT_FAILED, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect, home_folder
from llmlab.cli.embedded import start_services
from llmlab.cli.interrupts import until_interrupted
from llmlab.cli.plain import print_json
from llmlab.cli.run_commands import follow_and_conclude
from llmlab.cli.spend_tables import spend_table
from llmlab.cli.studies import load_study
from llmlab.client import SERVICES, Client, LlmlabError

SAMPLE_STUDY = files("llmlab.cli").joinpath("sample_study.yaml")
NEXT_STEPS = (
    "Next:",
    "  `llmlab results latest` shows the answers",
    "  `llmlab export latest -o answers.csv` writes them to a file",
    "  `llmlab spend --by day,model` shows what was spent, `llmlab budgets create --limit 10usd` limits it",
    "  `llmlab demo --print > study.yaml` makes a study file to edit, and `llmlab run study.yaml` runs it",
    "  `llmlab chat 'Hello'` talks to a model",
)
SERVING = "SERVING"
STATUS_COLUMNS = ("service", "address", "health", "version", "uptime", "features")


def demo(
    print_study: Annotated[
        bool, typer.Option("--print", help="Print the study file instead, to begin an own one with.")
    ] = False,
) -> None:
    """Run a sample study: no key, no server, no cost.

    It takes some seconds, goes through all five services and calls the built-in mock provider 144 times.
    """
    if print_study:
        typer.echo(SAMPLE_STUDY.read_text(encoding="utf-8"), nl=False)
        return

    async def command() -> None:
        with as_file(SAMPLE_STUDY) as file:
            study = load_study(file)
        work = asyncio.Event()
        async with connect(work=work) as client:
            work.set()
            console.print(_status_table([await _service_row(client, service) for service in SERVICES]))
            experiment = await client.create_experiment(study.name, study.spec, description=study.description)
            run = await client.start_run(experiment.experiment_id)
            console.print(f"{study.description.strip()}\n{experiment.cells:,} cells, run {run.run_id}", highlight=False)
            await follow_and_conclude(client, run.run_id, study.name, as_json=False)
            spend = await client.summarize_spend(group_by=[spend_pb2.SPEND_DIMENSION_MODEL])
            console.print(spend_table(spend, ["model"], console))
            hint("Prices of the mock provider are made up: nothing was paid. The spend is that of all runs in 30 days.")
        for step in NEXT_STEPS:
            hint(step)

    run_async(command())


def up() -> None:
    """Start all services in this process, on SQLite, until Ctrl-C.

    Other commands find them by themselves.
    """

    async def command() -> None:
        home = home_folder()
        async with start_services(home, fixed_ports=True) as endpoints:
            table = Table(box=None, pad_edge=False, show_header=False)
            for service in SERVICES:
                table.add_row(service, getattr(endpoints, service))
            console.print(table)
            hint(f"Data and credentials are in {home}. In another terminal: `llmlab demo`, `llmlab status` and others.")
            await until_interrupted()
            hint("Stopping.")

    run_async(command())


def status(as_json: AsJson = False) -> None:
    """Show where the services are and whether they serve."""

    async def command() -> None:
        async with connect() as client:
            rows = [await _service_row(client, service) for service in SERVICES]
        if as_json:
            print_json(rows)
        else:
            console.print(_status_table(rows))
        if any(row["health"] != SERVING for row in rows):
            raise CommandError("Not every service is serving; its log says why.", EXIT_FAILED)

    run_async(command())


async def _service_row(client: Client, service: str) -> dict[str, Any]:
    row: dict[str, Any] = {"service": service, "address": getattr(client.endpoints, service)}
    try:
        row["health"] = await client.health(service)
        info = await client.server_info(service)
    except LlmlabError as error:
        return {**row, "health": error.reason, "version": "-", "uptime": "-", "features": []}
    return {**row, "version": info.version, "uptime": info.uptime_s, "features": list(info.features)}


def _status_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in STATUS_COLUMNS:
        table.add_column(column, style="bold" if column == "service" else "")
    for row in rows:
        uptime = row["uptime"]
        table.add_row(
            row["service"],
            row["address"],
            row["health"],
            row["version"],
            uptime if isinstance(uptime, str) else figures.duration(uptime),
            " ".join(row["features"]),
        )
    return table


def token(as_json: AsJson = False) -> None:
    """Print an access token for other gRPC clients; it lives 15 minutes.

    It belongs to services that keep running: `llmlab up`, or those that LLMLAB_GATEWAY_TARGET and its siblings name.
    """

    async def command() -> None:
        async with connect() as client:
            access_token = await client.access_token()
        if as_json:
            print_json({"access_token": access_token})
        else:
            console.out(access_token, highlight=False)

    run_async(command())
