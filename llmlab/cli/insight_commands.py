"""Commands about where money goes and will go: anomalies, forecast."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from llmlab.api.cost.v1 import budget_pb2, insight_pb2
from llmlab.cli import budget_commands
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.contract import bounds_of
from llmlab.cli.figures import local_time
from llmlab.cli.known_values import window_of, without_usage
from llmlab.cli.money import amount_of, dollars
from llmlab.cli.options import TimeZone, refuse
from llmlab.cli.plain import print_json, to_plain

DAYS_DEFAULT = 30
LEVEL_DEFAULT_PERCENT = 80
PERIODS = {name: number for name, number in budget_commands.PERIODS.items() if name != "total"}
_LEVEL = bounds_of(insight_pb2.GetForecastRequest.DESCRIPTOR, "level_percent")


def anomalies(
    watch: Annotated[bool, typer.Option("--watch", help="Show those on record, then wait for more.")] = False,
    days: Annotated[
        int | None, typer.Option(min=1, max=366, help=f"How many days back; {DAYS_DEFAULT} if absent.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Only of this provider and its models.")] = "",
    least: Annotated[
        int | None,
        typer.Option(
            parser=amount_of(insight_pb2.ListAnomaliesRequest.DESCRIPTOR, "impact_min_nano_usd"),
            metavar="USD",
            help="Only hours that cost at least this much more, or less, than was expected, in USD.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the hours whose spending was out of the ordinary, with the band that was expected."""

    async def command() -> None:
        if watch:
            refuse("can't be used with --watch, which shows all", days=days, provider=provider, least=least)
        async with connect() as client:
            if watch:
                hint("Anomalies on record, and new ones some minutes after the end of their hour; Ctrl-C ends it.")
                await _follow(client.watch_anomalies(), as_json=as_json)
                return
            end = datetime.now(UTC)
            back = timedelta(days=days or DAYS_DEFAULT)
            found = [
                anomaly
                async for anomaly in client.list_anomalies(
                    start=end - back, end=end, provider=provider, impact_min_nano_usd=least or 0
                )
            ]
            unused = []
            if provider and not found:
                window = window_of(back)
                unused = await without_usage(client, window, {"provider": provider})
        if as_json:
            print_json([to_plain(anomaly) for anomaly in found])
        elif found:
            console.print(_table(found))
        else:
            hint(f"No anomalies in the last {back.days} days. Hours are judged some minutes after their end.")
            for sentence in unused:
                hint(sentence)

    run_async(command())


async def _follow(found: AsyncIterator[insight_pb2.Anomaly], *, as_json: bool) -> None:
    async for anomaly in found:
        if as_json:
            print_json(to_plain(anomaly))
        else:
            console.print("  ".join(_cells(anomaly)), highlight=False, soft_wrap=True)


def _table(found: list[insight_pb2.Anomaly]) -> Table:
    """An entry has two lines, so that it fits a narrow terminal."""
    table = Table(title="Anomalies", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("hour (UTC)\nof", overflow="fold")
    for heading in ("cost\nband expected", "difference\nscore"):
        table.add_column(heading, justify="right", no_wrap=True)
    for anomaly in found:
        hour, series, cost, _, band, difference, score = _cells(anomaly)
        table.add_row(f"{hour}\n{escape(series)}", f"{cost}\n{band}", f"{difference}\n{score}")
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
    period: Annotated[str, typer.Option(help=f"Of the running period: {', '.join(PERIODS)}; monthly if absent.")] = "",
    budget: Annotated[str, typer.Option(metavar="BUDGET", help="Of this budget's scope and period instead.")] = "",
    time_zone: TimeZone = "",
    level: Annotated[
        int, typer.Option(metavar="PERCENT", min=_LEVEL.low, max=_LEVEL.high, help="How sure the interval is to be.")
    ] = LEVEL_DEFAULT_PERCENT,
    as_json: AsJson = False,
) -> None:
    """Forecast what the running period will have cost at its end."""

    async def command() -> None:
        if budget:
            refuse("can't be used with --budget, which has its own", period=period, time_zone=time_zone)
        if period and period not in PERIODS:
            raise CommandError(f"--period takes {', '.join(PERIODS)}, not {period!r}.", EXIT_USAGE)
        async with connect() as client:
            zone = (await client.get_budget(budget)).time_zone if budget else time_zone or "UTC"
            found = await client.get_forecast(
                budget_id=budget,
                period=PERIODS[period] if period else budget_pb2.BUDGET_PERIOD_UNSPECIFIED,
                time_zone=time_zone,
                level_percent=level,
            )
        if as_json:
            print_json(to_plain(found))
            return
        total = f"{dollars(found.total_nano_usd)} by {local_time(found.end_time, zone)}"
        interval = f"between {dollars(found.lower_nano_usd)} and {dollars(found.upper_nano_usd)}"
        sure = f"{found.level_percent} % sure to be {interval}"
        console.print(f"{found.period}: {total}, {sure}", highlight=False, soft_wrap=True)
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
