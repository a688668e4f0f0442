"""How spend is shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import spend_pb2
from llmlab.cli.known_values import filter_of
from llmlab.cli.spend_tables import spend_table

KEYS = ("2026-11-21", "openai/gpt-4o-mini", "usr_01m7y99n267c8r0j0yrk3z9d1k", "key_01m7y99n267c8r0j0yrk3z9d1k")
ROW = spend_pb2.SpendRow(keys=KEYS, calls=1_000, cost=usage_pb2.Cost(cost_nano_usd=10**12))
DIMENSIONS = ("day", "model", "user", "key")


def shown(columns: int, summary: spend_pb2.SummarizeSpendResponse) -> list[str]:
    screen = io.StringIO()
    console = Console(file=screen, width=columns)
    console.print(spend_table(summary, DIMENSIONS, console))
    return screen.getvalue().splitlines()


def test_dimensions_stand_side_by_side_where_there_is_room_and_below_each_other_elsewhere() -> None:
    summary = spend_pb2.SummarizeSpendResponse(rows=[ROW], total=ROW)
    wide, narrow = shown(200, summary), shown(80, summary)
    assert any(all(key in line for key in KEYS) for line in wide)
    for key in KEYS:
        assert sum(key in line for line in narrow) == 1, narrow


def test_a_comparison_shows_the_cost_before_and_the_change() -> None:
    row = spend_pb2.SpendRow()
    row.CopyFrom(ROW)
    row.cost_before.cost_nano_usd = 2 * 10**12
    text = "\n".join(shown(200, spend_pb2.SummarizeSpendResponse(rows=[row], total=row)))
    assert "$2,000.00" in text
    assert "-50%" in text


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [("openai/", "openai", ""), ("openai/gpt-4o", "openai", "gpt-4o"), ("gpt-4o", "", "gpt-4o"), ("a/b/c", "a", "b/c")],
)
def test_a_model_is_filtered_by_its_provider_and_name(model: str, provider: str, name: str) -> None:
    assert filter_of({"model": model}) == spend_pb2.SpendFilter(provider=provider, model=name)
