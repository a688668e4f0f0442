"""The command about spend."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from llmlab.api.cost.v1 import spend_pb2
from llmlab.cli import charts, money
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.contract import items_max
from llmlab.cli.files import STANDARD_OUTPUT, written_file
from llmlab.cli.known_values import filter_of, without_usage
from llmlab.cli.options import Key, RunScope, Tag, TimeZone, User, refuse
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.run_choice import run_id_of
from llmlab.cli.spend_tables import spend_table
from llmlab.client import Client

DIMENSIONS = {
    name.removeprefix("SPEND_DIMENSION_").lower(): value
    for name, value in spend_pb2.SpendDimension.items()
    if value != spend_pb2.SPEND_DIMENSION_UNSPECIFIED
}
FORMATS = {
    "csv": spend_pb2.SPEND_FORMAT_CSV,
    "json": spend_pb2.SPEND_FORMAT_JSON_LINES,
    "focus": spend_pb2.SPEND_FORMAT_FOCUS_CSV,
}
DIMENSIONS_MAX = items_max(spend_pb2.SummarizeSpendRequest.DESCRIPTOR, "group_by")
CHART_DAYS_MIN = 2
_PERIODS = frozenset({"day", "week", "month"})
_LAST_DEFAULT = "30d"
_LENGTH = re.compile(r"([0-9]{1,5})([hdw])")
_UNIT_S = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}


def spend(
    by: Annotated[
        str,
        typer.Option(
            metavar="DIMENSIONS",
            help=f"Group by these, comma-separated, {DIMENSIONS_MAX} at most: {', '.join(DIMENSIONS)}; "
            "'' for the total alone.",
        ),
    ] = "model",
    last: Annotated[
        str, typer.Option(metavar="TIME", help=f"How far back: 30d, 48h, 8w. {_LAST_DEFAULT} if absent.")
    ] = "",
    period: Annotated[
        str,
        typer.Option(metavar="PERIOD", help="A calendar period instead: 2026-11-21, 2026-W47, 2026-11, 2026-Q4, 2026."),
    ] = "",
    time_zone: TimeZone = "UTC",
    compare: Annotated[bool, typer.Option("--compare", help="Compare with the period before.")] = False,
    user: User = "",
    key: Key = "",
    run: RunScope = "",
    tag: Tag = "",
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Only this model; provider/ means all of a provider's.")
    ] = "",
    split: Annotated[bool, typer.Option("--split", help="With --by tag: divide a call's cost among its tags.")] = False,
    top: Annotated[int, typer.Option(min=0, help="Only so many groups, the most expensive first; 0 for all.")] = 0,
    export: Annotated[
        str, typer.Option(metavar="FILE", help="Write a file of all groups instead; - for standard output.")
    ] = "",
    file_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="Of the file: csv (default), json (lines) or focus.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show what was spent, as a table with a chart of its days, or as a file."""

    async def command() -> None:
        groups = _groups(by, compare=compare, split=split)
        if export:
            refuse("can't be used with --export, which writes every group", compare=compare, top=top, json=as_json)
        else:
            refuse("can only be used with --export FILE", format=file_format)
        if file_format and file_format not in FORMATS:
            raise CommandError(f"--format is one of {', '.join(FORMATS)}, not {file_format!r}.", EXIT_USAGE)
        window = _window(last, period, time_zone)
        async with connect() as client:
            named = {"user": user, "key": key, "run": await run_id_of(client, run), "tag": tag, "model": model}
            question = _question(window, named, split=split)
            if export:
                question.group_by.extend(DIMENSIONS[name] for name in groups)
                await _write_file(client, question, export, FORMATS[file_format or "csv"])
                return
            days = None if as_json else await _days(client, question)
            question.group_by.extend(DIMENSIONS[name] for name in groups)
            question.compare = compare
            question.order = spend_pb2.SPEND_ORDER_COST if top else spend_pb2.SPEND_ORDER_KEYS
            summary = await client.summarize_spend(question=question, limit=top or None)
            if as_json:
                print_json(to_plain(summary))
            if _is_empty(summary):
                await _tell_nothing(client, window, last, named)
            elif not as_json:
                _show(summary, groups, days)

    run_async(command())


def _groups(by: str, *, compare: bool, split: bool) -> list[str]:
    names = [name.strip() for name in by.split(",") if name.strip()]
    for name in names:
        if name not in DIMENSIONS:
            raise CommandError(f"--by takes {', '.join(DIMENSIONS)}, not {name!r}.", EXIT_USAGE)
    if len(set(names)) < len(names):
        raise CommandError("--by takes each dimension once.", EXIT_USAGE)
    periods = _PERIODS.intersection(names)
    if len(periods) > 1:
        raise CommandError("--by takes one of day, week and month.", EXIT_USAGE)
    if len(names) > DIMENSIONS_MAX:
        raise CommandError(f"--by takes {DIMENSIONS_MAX} dimensions at most; these are {len(names)}.", EXIT_USAGE)
    if compare and periods:
        raise CommandError("--compare needs groups that both periods have; leave day, week, month out.", EXIT_USAGE)
    if split and "tag" not in names:
        raise CommandError("--split divides costs among tags; it needs --by tag.", EXIT_USAGE)
    return names


def _window(last: str, period: str, time_zone: str) -> spend_pb2.SummarizeSpendRequest:
    if last and period:
        raise CommandError("Say --last or --period, not both.", EXIT_USAGE)
    request = spend_pb2.SummarizeSpendRequest(period=period, time_zone=time_zone)
    if period:
        return request
    found = _LENGTH.fullmatch(last or _LAST_DEFAULT)
    if found is None or int(found[1]) == 0:
        raise CommandError(f"--last is a number with h, d or w, such as 30d; not {last!r}.", EXIT_USAGE)
    request.rolling.seconds = int(found[1]) * _UNIT_S[found[2]]
    return request


def _question(
    window: spend_pb2.SummarizeSpendRequest, named: Mapping[str, str], *, split: bool
) -> spend_pb2.SummarizeSpendRequest:
    question = spend_pb2.SummarizeSpendRequest()
    question.CopyFrom(window)
    question.filter.CopyFrom(filter_of(named))
    question.tag_share = spend_pb2.TAG_SHARE_SPLIT if split else spend_pb2.TAG_SHARE_UNSPECIFIED
    return question


async def _days(client: Client, question: spend_pb2.SummarizeSpendRequest) -> spend_pb2.SummarizeSpendResponse | None:
    """What each day cost; None for windows that are too short for a chart, or too long for one of days."""
    by_day = spend_pb2.SummarizeSpendRequest()
    by_day.CopyFrom(question)
    by_day.tag_share = spend_pb2.TAG_SHARE_UNSPECIFIED
    seconds = by_day.rolling.seconds
    if (seconds and not CHART_DAYS_MIN * 86_400 <= seconds <= 92 * 86_400) or len(by_day.period) in (4, 10):
        return None
    return await client.summarize_spend(question=by_day, group_by=[spend_pb2.SPEND_DIMENSION_DAY])


def _is_empty(summary: spend_pb2.SummarizeSpendResponse) -> bool:
    total = summary.total
    before = total.calls_before or total.cost_before.cost_nano_usd
    return not (summary.rows or total.calls or total.cost.cost_nano_usd or before)


def _show(
    summary: spend_pb2.SummarizeSpendResponse,
    groups: list[str],
    days: spend_pb2.SummarizeSpendResponse | None,
) -> None:
    console.print(spend_table(summary, groups, console))
    if days is not None and days.rows:
        console.print(charts.days_chart(days))
    if summary.next_page_token:
        hint("There are more groups; --top 0 shows all.")
    if summary.held_nano_usd:
        hint(f"{money.dollars(summary.held_nano_usd)} more is held by calls under way.")


async def _tell_nothing(
    client: Client, window: spend_pb2.SummarizeSpendRequest, last: str, named: Mapping[str, str]
) -> None:
    """Says that there is no usage, and which of the options is the cause."""
    when = f"in {window.period}" if window.period else f"in the last {last or _LAST_DEFAULT}"
    given = [f"--{name} {value}" for name, value in named.items() if value]
    if not given:
        hint(f"No usage {when}. `llmlab spend --last 52w` looks back further; `llmlab demo` makes some.")
        return
    hint(f"No usage matches {' '.join(given)} {when}.")
    for sentence in await without_usage(client, window, named):
        hint(sentence)


async def _write_file(
    client: Client,
    question: spend_pb2.SummarizeSpendRequest,
    output: str,
    file_format: spend_pb2.SpendFormat.ValueType,
) -> None:
    async def write(file: BinaryIO) -> int:
        rows = 0
        async for piece in client.export_spend(question, file_format):
            file.write(piece.data)
            rows = piece.rows
        return rows

    if output == STANDARD_OUTPUT:
        await write(sys.stdout.buffer)
        return
    path = Path(output)
    with written_file(path) as file:
        rows = await write(file)
    hint(f"{rows:,} rows written to {path}")
