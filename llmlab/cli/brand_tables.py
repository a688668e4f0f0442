"""The table of a run's brands, and its rows as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from llmlab.api.metrics.v1 import brands_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import figures

NESTED_SHOWN_MAX = 200
"""Lines of the nested table; all of them are in the file."""
DOMAINS_SHOWN = 5


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))


def brand_table(summary: run_pb2.SummarizeRunBrandsResponse) -> Table:
    """Builds the closing table of a brand study: one entry a brand, the most visible first.

    An entry has two lines: figures above, their 95 % intervals below.
    """
    compared = any(brand.HasField("change") for brand in summary.brands)
    table = _table("Brands")
    table.add_column("brand", overflow="fold")
    headings = ["mentioned\n95 %", "position\nabsent", "share of\nmentions", "share of\npresence", "cited", "sentiment"]
    for heading in [*headings, *(["change"] if compared else [])]:
        table.add_column(heading, justify="right", no_wrap=True, overflow="ellipsis")
    for brand in sorted(summary.brands, key=_most_visible_first):
        shown = brand.figures
        table.add_row(
            escape(f"{brand.brand}\n{shown.mentioning}/{shown.answers} answers"),
            _with_interval(shown.mention_rate),
            f"{figures.value(shown.average_position)}\n{figures.percent(shown.absence_rate)}",
            _with_interval(shown.share_of_mentions),
            _with_interval(shown.share_of_presence),
            figures.percent(shown.citation_rate),
            figures.value(shown.sentiment),
            *([change_text(brand.change)] if compared else []),
        )
    return table


def nested_table(summary: run_pb2.SummarizeRunBrandsResponse) -> Table:
    """Builds the table by brand, prompt and model, with every position."""
    table = Table(
        title="By brand, prompt and model",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("brand", "prompt", "model"):
        table.add_column(heading, overflow="fold")
    table.add_column("mentioned", justify="right", no_wrap=True)
    table.add_column("positions", overflow="fold")
    for number, (brand, prompt, model, shown) in enumerate(_leaves(summary)):
        if number == NESTED_SHOWN_MAX:
            break
        positions = " ".join(map(str, shown.positions)) or "-"
        table.add_row(escape(brand), escape(prompt), escape(model), f"{shown.mentioning}/{shown.answers}", positions)
    return table


def domains_text(domains: Sequence[run_pb2.CitedDomain]) -> str:
    """Formats the domains that most answers cite."""
    return ", ".join(f"{each.domain} ({each.answers})" for each in domains[:DOMAINS_SHOWN])


def change_text(change: brands_pb2.BrandChange) -> str:
    """Formats a change in percentage points, and whether it is more than noise."""
    if not change.HasField("difference"):
        return "-"
    points = f"{change.difference * 100:+.0f} points"
    return f"{points}\nwithin noise" if change.within_noise else points


def _with_interval(figure: statistics_pb2.Estimate) -> str:
    interval = ""
    if figure.HasField("low") and figure.HasField("high"):
        interval = f"{figure.low * 100:.0f}-{figure.high * 100:.0f} %"
    return f"{figures.percent(figure)}\n{interval}"


def _most_visible_first(brand: brands_pb2.BrandVisibility) -> tuple[float, float, str]:
    shown = brand.figures
    return (-shown.mention_rate.value, shown.average_position.value, brand.brand)


def _leaves(
    summary: run_pb2.SummarizeRunBrandsResponse,
) -> Iterator[tuple[str, str, str, brands_pb2.BrandFigures]]:
    for brand in summary.brands:
        for prompt in brand.prompts:
            for model in prompt.models:
                yield brand.brand, prompt.prompt, model.model, model.figures


_ESTIMATES = (
    "mention_rate",
    "absence_rate",
    "average_position",
    "share_of_mentions",
    "share_of_presence",
    "citation_rate",
    "sentiment",
)
_COUNTS = ("answers", "missing", "mentioning", "mentions")


def csv_text(summary: run_pb2.SummarizeRunBrandsResponse) -> str:
    """The figures as CSV: one line for each brand, brand and model, brand and prompt, and all three.

    Empty names of prompt and model mean all of them; an empty figure was not measured.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    columns = [f"{name}{end}" for name in _ESTIMATES for end in ("", "_low", "_high")]
    writer.writerow(["brand", "prompt", "model", *_COUNTS, *columns, "positions"])
    for brand in summary.brands:
        writer.writerow(_line(brand.brand, "", "", brand.figures))
        for model in brand.models:
            writer.writerow(_line(brand.brand, "", model.model, model.figures))
        for prompt in brand.prompts:
            writer.writerow(_line(brand.brand, prompt.prompt, "", prompt.figures))
            for model in prompt.models:
                writer.writerow(_line(brand.brand, prompt.prompt, model.model, model.figures))
    return text.getvalue()


def _line(brand: str, prompt: str, model: str, shown: brands_pb2.BrandFigures) -> list[object]:
    estimates: list[statistics_pb2.Estimate] = [getattr(shown, name) for name in _ESTIMATES]
    ends = [
        getattr(estimate, end) if estimate.HasField(end) else ""
        for estimate in estimates
        for end in ("value", "low", "high")
    ]
    names = [guarded(name) for name in (brand, prompt, model)]
    counts = [getattr(shown, name) for name in _COUNTS]
    return [*names, *counts, *ends, " ".join(map(str, shown.positions))]


def guarded(text: str) -> str:
    """Writes a text so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
