"""How the mention rates of brands moved over runs: each run beside the one before it, the last beside the first.

Every change comes from the services, with the interval that says whether it is more than noise.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from llmlab.api.metrics.v1 import brands_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import brand_tables, figures
from llmlab.cli.app import EXIT_USAGE, CommandError
from llmlab.cli.plain import to_plain
from llmlab.client import Client

RUNS_MAX = 20
"""Runs of one trend; each is a column, and summed up anew."""


_COLUMNS = (
    *("run_id", "create_time", "brand", "answers", "missing", "mention_rate", "mention_rate_low", "mention_rate_high"),
    *("change", "change_low", "change_high", "within_noise"),
)


@dataclass(frozen=True, slots=True)
class Trend:
    """Several runs' brands, the oldest run first."""

    steps: Sequence[run_pb2.SummarizeRunBrandsResponse]
    """Each run, compared with the one before it; the first with none."""
    whole: run_pb2.SummarizeRunBrandsResponse
    """The last run, compared with the first."""

    def brands(self) -> list[str]:
        """The names of all brands, those of the last run first."""
        return list(dict.fromkeys(brand.brand for step in reversed(self.steps) for brand in step.brands))


async def gather(client: Client, runs: Sequence[run_pb2.Run]) -> Trend:
    """Asks for the brands of each run.

    Raises:
        CommandError: A run is named twice, or there are too many.
    """
    ids = [run.run_id for run in sorted(runs, key=lambda run: run.create_time.ToMicroseconds())]
    if len(set(ids)) < len(ids):
        raise CommandError("A trend names each run once.", EXIT_USAGE)
    if len(ids) > RUNS_MAX:
        raise CommandError(f"A trend takes at most {RUNS_MAX} runs, not {len(ids)}.", EXIT_USAGE)
    steps = [
        await client.summarize_run_brands(run, baseline_run_id=before)
        for before, run in zip(["", *ids], ids, strict=False)
    ]
    return Trend(steps, await client.summarize_run_brands(ids[-1], baseline_run_id=ids[0]))


def trend_table(trend: Trend) -> Table:
    """Builds the table: of each brand a line a run, with the change since the one before, and the whole change."""
    table = Table(
        title="Mention rates, the oldest run first",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("brand", overflow="fold")
    table.add_column("run", overflow="fold")
    for heading in ("answers", "mentioned", "95 %", "change", "95 %", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in trend.brands():
        for number, step in enumerate(trend.steps):
            brand = _find(step, name)
            when = f"{step.run.create_time.ToDatetime():%Y-%m-%d %H:%M}"
            table.add_row(escape(name) if number == 0 else "", when, *_rate(brand), *_change(brand))
        if len(trend.steps) > 2:
            table.add_row("", "first to last", "", "", "", *_change(_find(trend.whole, name)), end_section=True)
    return table


def csv_text(trend: Trend) -> str:
    """The trend as CSV: one line a run and brand, the change being that since the run before; empty: not measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for step in trend.steps:
        for brand in step.brands:
            writer.writerow(_line(step.run, brand))
    return text.getvalue()


def plain(trend: Trend) -> dict[str, object]:
    """The trend for JSON: `runs`, each compared with the one before, and `first_to_last`."""
    return {"runs": [to_plain(step) for step in trend.steps], "first_to_last": to_plain(trend.whole)}


def _find(summary: run_pb2.SummarizeRunBrandsResponse, name: str) -> brands_pb2.BrandVisibility | None:
    return next((brand for brand in summary.brands if brand.brand == name), None)


def _rate(brand: brands_pb2.BrandVisibility | None) -> tuple[str, str, str]:
    if brand is None:
        return ("-", "-", "-")
    rate = brand.figures.mention_rate
    interval = f"{rate.low * 100:.0f}-{rate.high * 100:.0f} %" if rate.HasField("low") and rate.HasField("high") else ""
    return (str(brand.figures.answers), figures.percent(rate), interval)


def _change(brand: brands_pb2.BrandVisibility | None) -> tuple[str, str, str]:
    if brand is None or not brand.change.HasField("difference"):
        return ("-", "", "")
    change = brand.change
    interval = f"{change.low * 100:+.0f} to {change.high * 100:+.0f}" if change.HasField("low") else ""
    return (f"{change.difference * 100:+.0f} points", interval, "within noise" if change.within_noise else "")


def _line(run: run_pb2.Run, brand: brands_pb2.BrandVisibility) -> Iterator[object]:
    rate, change = brand.figures.mention_rate, brand.change
    yield from (run.run_id, run.create_time.ToJsonString(), brand_tables.guarded(brand.brand))
    yield from (brand.figures.answers, brand.figures.missing)
    yield from (getattr(rate, end) if rate.HasField(end) else "" for end in ("value", "low", "high"))
    yield from (getattr(change, end) if change.HasField(end) else "" for end in ("difference", "low", "high"))
    yield str(change.within_noise).lower() if change.HasField("difference") else ""
