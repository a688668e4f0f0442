"""Small charts of unicode bars, for the terminal."""

from __future__ import annotations

from datetime import date, timedelta

from rich.text import Text

from llmlab.api.cost.v1 import spend_pb2
from llmlab.cli import money

_BARS = " ▁▂▃▄▅▆▇█"


def bars(values: list[int]) -> str:
    """Draws a bar for each value, the highest in full; a value above 0 is always seen.

    >>> bars([0, 1, 4, 8])
    ' ▁▄█'
    """
    highest = max(values, default=0)
    if highest <= 0:
        return _BARS[0] * len(values)
    steps = len(_BARS) - 1
    return "".join(_BARS[max(1, round(value * steps / highest)) if value > 0 else 0] for value in values)


def days_chart(summary: spend_pb2.SummarizeSpendResponse) -> Text:
    """Draws what each day of a summary by day cost, from its first day with calls to its last."""
    by_day = {date.fromisoformat(row.keys[0]): row.cost.cost_nano_usd for row in summary.rows}
    if not by_day:
        return Text("")
    first, last = min(by_day), max(by_day)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    costs = [by_day.get(day, 0) for day in days]
    return Text.assemble(
        (f"{first} ", "dim"),
        (bars(costs), "cyan"),
        (f" {last}", "dim"),
        (f"   highest day {money.dollars(max(costs))}", "dim"),
    )
