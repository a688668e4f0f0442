"""How spend is shown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from llmlab.api.cost.v1 import spend_pb2
from llmlab.cli import figures, money

WIDTH_MEASURED_MAX = 10_000
"""Wider than any table; a measurement ends at it."""


def spend_table(spend: spend_pb2.SummarizeSpendResponse, dimensions: Sequence[str], console: Console) -> Table:
    """Builds the spend table with its total; where it is a comparison, with the cost before and the change.

    Each dimension has a column, unless the screen is too narrow for that: then they stand below each other in one.
    """
    wide = _table(spend, dimensions, stacked=False)
    unbounded = console.options.update(max_width=WIDTH_MEASURED_MAX)
    if len(dimensions) < 2 or Measurement.get(console, unbounded, wide).maximum <= console.width:
        return wide
    return _table(spend, dimensions, stacked=True)


def _table(spend: spend_pb2.SummarizeSpendResponse, dimensions: Sequence[str], *, stacked: bool) -> Table:
    compared = spend.total.HasField("cost_before")
    headings = ["\n".join(dimensions)] if stacked else list(dimensions)
    table = Table(title="Spend", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for heading in ("calls", "tokens\nin > out", "cost", *(("before", "change") if compared else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in spend.rows:
        keys = [escape(key) or "(none)" for key in row.keys]
        table.add_row(*(["\n".join(keys)] if stacked else keys), *_cells(row, compared=compared))
    if headings:
        table.add_section()
    labels = ["total", *[""] * (len(headings) - 1)] if headings else []
    table.add_row(*labels, *_cells(spend.total, compared=compared), style="bold")
    return table


def _cells(row: spend_pb2.SpendRow, *, compared: bool) -> list[str]:
    cells = [f"{row.calls:,}", figures.tokens(row.usage), money.cost(row.cost)]
    if compared:
        now, before = row.cost.cost_nano_usd, row.cost_before.cost_nano_usd
        change = f"{(now - before) / before:+.0%}" if before > 0 else "-"
        cells += [money.cost(row.cost_before), change]
    return cells
