"""How budgets are shown."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from llmlab.api.cost.v1 import budget_pb2
from llmlab.cli.budget_commands import PERIODS
from llmlab.cli.budget_tables import budgets_table, reset_text, scope_text, usage_bar


def shown(*budgets: budget_pb2.Budget, columns: int = 80) -> str:
    screen = io.StringIO()
    Console(file=screen, width=columns).print(budgets_table(budgets))
    return screen.getvalue()


def test_scopes_as_people_read_them() -> None:
    assert scope_text(budget_pb2.BudgetScope()) == "project"
    assert scope_text(budget_pb2.BudgetScope(tag="team=a", user_id="usr_1")) == "user usr_1, tag team=a"
    assert list(PERIODS) == ["daily", "weekly", "monthly", "quarterly", "yearly", "total"]


@pytest.mark.parametrize(
    ("settled", "held", "bar"),
    [
        (0, 0, "·" * 20 + " 0 %"),
        (-5, 0, "·" * 20 + " -1 %"),
        (500_000_000, 1, "█" * 10 + "▒" + "·" * 9 + " 50 %"),
        (900_000_000, 900_000_000, "█" * 18 + "▒" * 2 + " 90 %"),
        (3_000_000_000, 5, "█" * 20 + " 300 %"),
    ],
)
def test_the_bar_shows_what_is_settled_and_held(settled: int, held: int, bar: str) -> None:
    status = budget_pb2.BudgetStatus(settled_nano_usd=settled, held_nano_usd=held)
    budget = budget_pb2.Budget(limit_nano_usd=1_000_000_000, status=status)
    assert usage_bar(budget).plain == bar


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "resets 2026-11-30 23:00 UTC"),
        ("Europe/Berlin", "resets 2026-12-01 00:00 Europe/Berlin"),
        ("No/Where", "resets 2026-11-30 23:00 UTC"),
    ],
)
def test_the_reset_is_told_by_the_clock_of_the_budget(zone: str, text: str) -> None:
    status = budget_pb2.BudgetStatus(period="2026-11")
    status.resets_at.FromDatetime(datetime(2026, 11, 30, 23, tzinfo=UTC))
    assert reset_text(budget_pb2.Budget(time_zone=zone, status=status)) == text
    assert reset_text(budget_pb2.Budget(status=budget_pb2.BudgetStatus(period="total"))) == "never resets"


def test_a_budget_fits_a_narrow_screen_and_says_all() -> None:
    status = budget_pb2.BudgetStatus(period="2026-11", settled_nano_usd=2 * 10**12, held_nano_usd=10**12)
    status.resets_at.FromDatetime(datetime(2026, 11, 30, 23, tzinfo=UTC))
    table = shown(
        budget_pb2.Budget(
            budget_id="bud_01m7y99n267c8r0j0yrk3z9d1k",
            name="a [/b] [red]c",
            scope=budget_pb2.BudgetScope(user_id="usr_01m7y99n267c8r0j0yrk3z9d1k"),
            time_zone="Europe/Berlin",
            limit_nano_usd=10**13,
            thresholds_percent=[50, 80],
            status=status,
        )
    )
    for expected in (
        "a [/b] [red]c",
        "bud_01m7y99n267c8r0j0yrk3z9d1k",
        "user usr_01m7y99n267c8r0j0yrk3z9d1k",
        "hard",
        "20 % in 2026-11",
        "$2,000.00 of $10,000.00, $1,000.00 held",
        "resets 2026-12-01 00:00 Europe/Berlin",
        "alerts at 50, 80 %",
    ):
        assert expected in table, table
