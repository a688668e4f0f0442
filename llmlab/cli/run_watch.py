"""Watching the runs of a project: a table that changes on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from contextlib import aclosing

from rich.live import Live
from rich.table import Table

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import money, tables
from llmlab.cli.app import console, redraws
from llmlab.cli.listing import taken
from llmlab.cli.plain import print_json, to_plain
from llmlab.client import Client


async def watch_runs(client: Client, limit: int, *, as_json: bool) -> None:
    """Shows the newest runs, and how they change, until the caller ends it."""
    shown = {} if as_json else {run.run_id: run for run in await taken(client.list_runs(), limit)}
    async with aclosing(client.watch_runs()) as changes:
        if as_json:
            async for run in changes:
                print_json(to_plain(run))
        elif redraws():
            with Live(_table(shown, limit), console=console, auto_refresh=False) as live:
                async for run in changes:
                    shown[run.run_id] = run
                    live.update(_table(shown, limit), refresh=True)
        else:
            console.print(_table(shown, limit))
            async for run in changes:
                console.print(_line(run), highlight=False, soft_wrap=True)


def _table(shown: dict[str, run_pb2.Run], limit: int) -> Table:
    newest = sorted(shown, reverse=True)
    for run_id in newest[limit:]:
        del shown[run_id]
    return tables.runs_table(shown[run_id] for run_id in newest[:limit])


def _line(run: run_pb2.Run) -> str:
    statistics = run.statistics
    lost = statistics.cells_failed + statistics.cells_unknown
    state = tables.run_state(run.status).plain
    done = f"{statistics.cells_done:,}/{statistics.cells_total:,}"
    return f"{run.run_id}  {state}  {done}  {lost:,} failed  {money.cost(statistics.cost)}"
