"""Commands about where money goes and will go: anomalies, forecast."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from llmlab.api.cost.v1 import budget_pb2, insight_pb2
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.figures import dollars
from llmlab.cli.plain import print_json, to_plain

NANO_USD = 1_000_000_000
PERIODS = {
    "day": budget_pb2.BUDGET_PERIOD_DAILY,
    "week": budget_pb2.BUDGET_PERIOD_WEEKLY,
    "month": budget_pb2.BUDGET_PERIOD_MONTHLY,
    "quarter": budget_pb2.BUDGET_PERIOD_QUARTERLY,
    "year": budget_pb2.BUDGET_PERIOD_YEARLY,
}


def anomalies(
    watch: Annotated[bool, typer.Option("--watch", help="Show those on record, then wait for more.")] = False,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days back; not with --watch.")] = 30,
    provider: Annotated[str, typer.Option(help="Only of this provider; not with --watch.")] = "",
    least: Annotated[float, typer.Option("--least", min=0, help="Smallest difference, USD; not with --watch.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Show the hours whose spending was out of the ordinary, with the band that was expected."""

    async def command() -> None:
        async with connect() as client:
            if watch:
                await _follow(client.watch_anomalies(), as_json=as_json)
                return
            end = datetime.now(UTC)
            found = [
                anomaly
                async for anomaly in client.list_anomalies(
                    start=end - timedelta(days=days),
                    end=end,
                    provider=provider,
                    impact_min_nano_usd=round(least * NANO_USD),
                )
            ]
        if as_json:
            print_json([to_plain(anomaly) for anomaly in found])
        elif found:
            console.print(_table(found))
        else:
            hint(f"No anomalies in the last {days} days. Hours are judged some minutes after their end.")

    run_async(command())


async def _follow(found: AsyncIterator[insight_pb2.Anomaly], *, as_json: bool) -> None:
    async for anomaly in found:
        if as_json:
            print_json(to_plain(anomaly))
        else:
            console.print("  ".join(_cells(anomaly)), highlight=False, soft_wrap=True)


def _table(found: list[insight_pb2.Anomaly]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("hour (UTC)", "of"):
        table.add_column(name, no_wrap=True)
    for name in ("cost", "expected", "band", "difference", "score"):
        table.add_column(name, justify="right")
    for anomaly in found:
        table.add_row(*_cells(anomaly))
    return table


def _cells(anomaly: insight_pb2.Anomaly) -> list[str]:
    series = "/".join(filter(None, (anomaly.provider, anomaly.model))) or "project"
    return [
        f"{anomaly.start_time.ToDatetime():%Y-%m-%d %H:%M}",
        series,
        dollars(anomaly.observed_nano_usd),
        dollars(anomaly.expected_nano_usd),
        f"{dollars(anomaly.lower_nano_usd)} - {dollars(anomaly.upper_nano_usd)}",
        dollars(anomaly.impact_nano_usd),
        f"{anomaly.score:.2f}",
    ]


def forecast(
    period: Annotated[str, typer.Option(help="The running day, week, month, quarter or year.")] = "month",
    budget: Annotated[str, typer.Option(help="Of this budget's scope and period instead, by its id.")] = "",
    zone: Annotated[str, typer.Option(help="The time zone of the calendar, such as Europe/Berlin.")] = "",
    level: Annotated[int, typer.Option(min=50, max=99, help="How much of 100 the interval is to hold.")] = 80,
    as_json: AsJson = False,
) -> None:
    """Forecast what the running period will have cost at its end."""

    async def command() -> None:
        if period not in PERIODS:
            raise CommandError(f"--period takes {', '.join(PERIODS)}, not {period!r}.", EXIT_USAGE)
        async with connect() as client:
            found = await client.get_forecast(
                budget_id=budget,
                period=budget_pb2.BUDGET_PERIOD_UNSPECIFIED if budget else PERIODS[period],
                time_zone=zone,
                level_percent=level,
            )
        if as_json:
            print_json(to_plain(found))
            return
        console.print(
            f"{found.period}: {dollars(found.total_nano_usd)} by {found.end_time.ToDatetime():%Y-%m-%d %H:%M} UTC, "
            f"with {found.level_percent} % between {dollars(found.lower_nano_usd)} and {dollars(found.upper_nano_usd)}",
            highlight=False,
            soft_wrap=True,
        )
        console.print(f"spent until now: {dollars(found.spent_nano_usd)}", highlight=False)
        if found.limit_nano_usd:
            console.print(_against(found), highlight=False)

    run_async(command())


def _against(found: insight_pb2.Forecast) -> str:
    limit = dollars(found.limit_nano_usd)
    if found.lower_nano_usd > found.limit_nano_usd:
        return f"limit: {limit}; it will be exceeded"
    if found.upper_nano_usd > found.limit_nano_usd:
        return f"limit: {limit}; it may be exceeded"
    return f"limit: {limit}; it will do"
