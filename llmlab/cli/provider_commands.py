"""Commands about the providers behind the gateway: providers."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from llmlab.api.gateway.v1 import provider_pb2
from llmlab.cli.app import AsJson, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain

STATES = {
    provider_pb2.CIRCUIT_STATE_CLOSED: "closed",
    provider_pb2.CIRCUIT_STATE_OPEN: "[red]open[/red]",
    provider_pb2.CIRCUIT_STATE_HALF_OPEN: "[yellow]half-open[/yellow]",
}


def providers(as_json: AsJson = False) -> None:
    """Show the providers, and the circuit breakers of what was called lately.

    Live figures are those of the gateway that answers; without running services nothing was called yet.
    """

    async def command() -> None:
        async with connect() as client:
            found = [provider async for provider in client.list_providers()]
        if as_json:
            print_json([to_plain(provider) for provider in found])
            return
        if not found:
            hint("The gateway has no providers; its catalogue names them (LLMLAB_GATEWAY_CATALOGUE).")
            return
        console.print(providers_table(found))
        deployments = deployments_table(found)
        if deployments.row_count:
            console.print("", deployments)

    run_async(command())


def providers_table(found: Iterable[provider_pb2.Provider]) -> Table:
    """Which providers there are, and what those need that can't be called yet."""
    table = Table("provider", "ready", box=None, pad_edge=False)
    for provider in found:
        table.add_row(provider.name, "yes" if provider.configured else f"set {provider.missing_setting}")
    return table


def deployments_table(found: Iterable[provider_pb2.Provider]) -> Table:
    """The circuit breakers of what was called lately."""
    table = Table("deployment", "breaker", box=None, pad_edge=False)
    for column in ("calls", "failed", "next probe"):
        table.add_column(column, justify="right")
    for provider in found:
        for deployment in provider.deployments:
            name = f"{provider.name}/{deployment.model}"
            table.add_row(escape(name), *_breaker_cells(deployment.circuit_breaker))
    return table


def _breaker_cells(breaker: provider_pb2.CircuitBreaker) -> tuple[str, ...]:
    probe = f"{breaker.next_probe_at.ToDatetime():%H:%M:%S} UTC" if breaker.HasField("next_probe_at") else ""
    return STATES[breaker.state], f"{breaker.calls:,}", f"{breaker.error_rate:.0%}", probe
