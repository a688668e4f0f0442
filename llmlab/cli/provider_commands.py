"""Commands about the providers behind the gateway: providers."""

from __future__ import annotations

from rich.table import Table

from llmlab.api.gateway.v1 import provider_pb2
from llmlab.cli.app import AsJson, console, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain

STATES = {
    provider_pb2.CIRCUIT_STATE_CLOSED: "closed",
    provider_pb2.CIRCUIT_STATE_OPEN: "[red]open[/red]",
    provider_pb2.CIRCUIT_STATE_HALF_OPEN: "[yellow]half-open[/yellow]",
}
COLUMNS = ("provider", "ready", "deployment", "breaker", "calls", "failed", "next probe")


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
        table = Table(box=None, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column)
        for provider in found:
            ready = "yes" if provider.configured else f"set {provider.missing_setting}"
            if not provider.deployments:
                table.add_row(provider.name, ready)
            for deployment in provider.deployments:
                table.add_row(provider.name, ready, deployment.model, *_breaker_cells(deployment.circuit_breaker))
        console.print(table)

    run_async(command())


def _breaker_cells(breaker: provider_pb2.CircuitBreaker) -> tuple[str, ...]:
    probe = f"{breaker.next_probe_at.ToDatetime():%H:%M:%S} UTC" if breaker.HasField("next_probe_at") else ""
    return STATES[breaker.state], f"{breaker.calls:,}", f"{breaker.error_rate:.0%}", probe
