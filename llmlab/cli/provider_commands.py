"""Commands about the providers behind the gateway: providers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from llmlab.api.gateway.v1 import provider_pb2
from llmlab.cli.app import AsJson, console, hint, redraws, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.client import Client

STATES = {
    provider_pb2.CIRCUIT_STATE_CLOSED: "closed",
    provider_pb2.CIRCUIT_STATE_OPEN: "[red]open[/red]",
    provider_pb2.CIRCUIT_STATE_HALF_OPEN: "[yellow]half-open[/yellow]",
}


def providers(
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing them; Ctrl-C ends it.")] = False,
    every: Annotated[float, typer.Option(min=0.1, max=3_600, help="With --watch: seconds between looks.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show the providers, the circuit breakers of what was called lately, and what limits have left.

    Live figures are those of the gateway that answers; without running services nothing was called yet. With --watch
    --json, one list a line.
    """

    async def command() -> None:
        async with connect() as client:
            if not watch:
                _show(await _found(client), as_json=as_json)
                return
            await _watch(client, every, as_json=as_json)

    run_async(command())


async def _found(client: Client) -> list[provider_pb2.Provider]:
    return [provider async for provider in client.list_providers()]


async def _watch(client: Client, every_s: float, *, as_json: bool) -> None:
    """Looks again and again: on a terminal the figures change in their place, elsewhere they come one after another."""
    with Live(console=console, auto_refresh=False) if redraws() and not as_json else nullcontext() as live:
        while True:
            found = await _found(client)
            if live is None:
                _show(found, as_json=as_json)
            else:
                live.update(_tables(found), refresh=True)
            await asyncio.sleep(every_s)


def _show(found: list[provider_pb2.Provider], *, as_json: bool) -> None:
    if as_json:
        print_json([to_plain(provider) for provider in found])
    elif not found:
        hint("The gateway has no providers; its catalogue names them (LLMLAB_GATEWAY_CATALOGUE_FILE).")
    else:
        console.print(_tables(found))


def _tables(found: list[provider_pb2.Provider]) -> Group:
    deployments = deployments_table(found)
    return Group(providers_table(found), *(("", deployments) if deployments.row_count else ()))


def providers_table(found: Iterable[provider_pb2.Provider]) -> Table:
    """Which providers there are, and what those need that can't be called yet."""
    table = Table("provider", "ready", box=None, pad_edge=False)
    for provider in found:
        table.add_row(provider.name, "yes" if provider.configured else f"set {provider.missing_setting}")
    return table


def deployments_table(found: Iterable[provider_pb2.Provider]) -> Table:
    """The circuit breakers of what was called lately, and the limits of what has some."""
    table = Table("deployment", "breaker", box=None, pad_edge=False)
    for column in ("calls", "failed", "next probe"):
        table.add_column(column, justify="right")
    deployments = [deployment for provider in found for deployment in provider.deployments]
    limited = any(each.HasField("requests") or each.HasField("tokens") for each in deployments)
    if limited:
        table.add_column("requests left", justify="right")
        table.add_column("tokens left", justify="right")
    for each in deployments:
        cells = _breaker_cells(each.circuit_breaker) if each.HasField("circuit_breaker") else ("", "", "", "")
        limits = [_limit_cell(each.requests), _limit_cell(each.tokens)] if limited else []
        table.add_row(escape(each.model), *cells, *limits)
    return table


def _breaker_cells(breaker: provider_pb2.CircuitBreaker) -> tuple[str, str, str, str]:
    probe = f"{breaker.next_probe_at.ToDatetime():%H:%M:%S} UTC" if breaker.HasField("next_probe_at") else ""
    return STATES[breaker.state], f"{breaker.calls:,}", f"{breaker.error_rate:.0%}", probe


def _limit_cell(limit: provider_pb2.RateLimit) -> str:
    return f"{limit.left:,} of {limit.burst:,}" if limit.per_minute else ""
