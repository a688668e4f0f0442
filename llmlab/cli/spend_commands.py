"""The command about spend."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from llmlab.api.cost.v1 import spend_pb2
from llmlab.cli import charts, figures, tables
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, notes, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
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
CHART_DAYS_MIN = 2
_LENGTH = re.compile(r"(\d{1,5})([hdw])")
_UNIT_S = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}


def spend(
    by: Annotated[
        str, typer.Option(help=f"Group by these, comma-separated: {', '.join(DIMENSIONS)}; '' for the total alone.")
    ] = "model",
    last: Annotated[str, typer.Option(help="How far back: 30d, 48h, 8w. 30d if nothing is said.")] = "",
    month: Annotated[str, typer.Option(help="A calendar period instead: 2026-11, 2026-W47, 2026-11-21, 2026.")] = "",
    zone: Annotated[str, typer.Option(help="Time zone of days, weeks and months, such as Europe/Berlin.")] = "",
    compare: Annotated[bool, typer.Option("--compare", help="Compare with the period before.")] = False,
    user: Annotated[str, typer.Option(help="Only this user.")] = "",
    key: Annotated[str, typer.Option(help="Only this API key.")] = "",
    run: Annotated[str, typer.Option(help="Only this run.")] = "",
    tag: Annotated[str, typer.Option(help="Only this tag, as key=value.")] = "",
    model: Annotated[str, typer.Option(help="Only this model; provider/ means all of a provider's.")] = "",
    split: Annotated[bool, typer.Option("--split", help="Divide a call's cost among its tags.")] = False,
    top: Annotated[int, typer.Option(min=0, help="Only so many groups, the most expensive first; 0 for all.")] = 0,
    export: Annotated[Path | None, typer.Option(help="Write a file of all groups instead.")] = None,
    file_format: Annotated[str, typer.Option("--format", help="Of the file: csv, json (lines) or focus.")] = "csv",
    as_json: AsJson = False,
) -> None:
    """Show what was spent, as a table with a chart of its days, or as a file."""

    async def command() -> None:
        names = [name.strip() for name in by.split(",") if name.strip()]
        unknown = [name for name in names if name not in DIMENSIONS]
        if unknown:
            raise CommandError(f"--by takes {', '.join(DIMENSIONS)}, not {unknown[0]!r}.", EXIT_USAGE)
        if file_format not in FORMATS:
            raise CommandError(f"--format is one of {', '.join(FORMATS)}, not {file_format!r}.", EXIT_USAGE)
        question = _window(last, month)
        provider, _, name = model.partition("/") if "/" in model else ("", "", model)
        question.filter.CopyFrom(
            spend_pb2.SpendFilter(provider=provider, model=name, user_id=user, key_id=key, run_id=run, tag=tag)
        )
        question.time_zone = zone
        question.tag_share = spend_pb2.TAG_SHARE_SPLIT if split else spend_pb2.TAG_SHARE_UNSPECIFIED
        async with connect() as client:
            if export is not None:
                question.group_by.extend(DIMENSIONS[name] for name in names)
                await _write_file(client, question, export, file_format)
                return
            days = await _days(client, question) if not as_json else None
            question.group_by.extend(DIMENSIONS[name] for name in names)
            question.compare = compare
            question.order = spend_pb2.SPEND_ORDER_COST if top else spend_pb2.SPEND_ORDER_KEYS
            summary = await client.summarize_spend(question=question, limit=top or None)
        if as_json:
            print_json(to_plain(summary))
            return
        console.print(tables.spend_table(summary, names))
        if days is not None:
            console.print(charts.days_chart(days))
        if summary.held_nano_usd:
            notes.print(f"{figures.dollars(summary.held_nano_usd)} more is held by calls under way.", highlight=False)

    run_async(command())


def _window(last: str, period: str) -> spend_pb2.SummarizeSpendRequest:
    if last and period:
        raise CommandError("Say --last or --month, not both.", EXIT_USAGE)
    request = spend_pb2.SummarizeSpendRequest(period=period)
    if period:
        return request
    found = _LENGTH.fullmatch(last or "30d")
    if found is None or int(found[1]) == 0:
        raise CommandError(f"--last is a number with h, d or w, such as 30d; not {last!r}.", EXIT_USAGE)
    request.rolling.seconds = int(found[1]) * _UNIT_S[found[2]]
    return request


async def _days(client: Client, question: spend_pb2.SummarizeSpendRequest) -> spend_pb2.SummarizeSpendResponse | None:
    """What each day cost; None for windows that are too short for a chart, or too long for one of days."""
    by_day = spend_pb2.SummarizeSpendRequest()
    by_day.CopyFrom(question)
    by_day.tag_share = spend_pb2.TAG_SHARE_UNSPECIFIED
    seconds = by_day.rolling.seconds
    if (seconds and not CHART_DAYS_MIN * 86_400 <= seconds <= 92 * 86_400) or len(by_day.period) in (4, 10):
        return None
    return await client.summarize_spend(question=by_day, group_by=[spend_pb2.SPEND_DIMENSION_DAY])


async def _write_file(
    client: Client, question: spend_pb2.SummarizeSpendRequest, output: Path, file_format: str
) -> None:
    # A broken export leaves no file that looks complete.
    partial = output.with_name(output.name + ".part")
    written = 0
    try:
        with partial.open("wb") as file:
            async for piece in client.export_spend(question, FORMATS[file_format]):
                file.write(piece.data)
                written = piece.rows
        partial.replace(output)
    except OSError as error:
        raise CommandError(f"{output}: can't be written ({error.strerror}).", EXIT_USAGE) from error
    hint(f"{written:,} rows written to {output}")
