import io

import pytest
from rich.console import Console

from llmlab.api.cost.v1 import budget_pb2
from llmlab.cli.app import CommandError
from llmlab.cli.budget_commands import PERIODS, budgets_table, nano_usd_of, scope_text, usage_bar


@pytest.mark.parametrize(
    ("text", "nano_usd"),
    [
        ("10usd", 10_000_000_000),
        ("10 USD", 10_000_000_000),
        ("$0.5", 500_000_000),
        ("1_000", 1_000_000_000_000),
        ("0.000000001", 1),
        ("-1", -1_000_000_000),
    ],
)
def test_amounts_are_read_exactly(text: str, nano_usd: int) -> None:
    assert nano_usd_of(text) == nano_usd


@pytest.mark.parametrize("text", ["", "ten", "10eur", "0.0000000001", "inf", "nan", "1,5", "1e30"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="10usd"):
        nano_usd_of(text)


def test_scopes_as_people_read_them() -> None:
    assert scope_text(budget_pb2.BudgetScope()) == "project"
    assert scope_text(budget_pb2.BudgetScope(tag="team=a", user_id="usr_1")) == "user usr_1, tag team=a"
    assert list(PERIODS) == ["daily", "weekly", "monthly", "quarterly", "yearly", "total"]


@pytest.mark.parametrize(
    ("settled", "held", "bar", "text"),
    [
        (0, 0, "·" * 20, "$0 (0 %)"),
        (500_000_000, 1, "█" * 10 + "▒" + "·" * 9, "$0.5000 (50 %)"),
        (900_000_000, 900_000_000, "█" * 18 + "▒" * 2, "$0.9000 (90 %)"),
        (3_000_000_000, 5, "█" * 20, "$3.00 (300 %)"),
    ],
)
def test_the_bar_shows_what_is_settled_and_held(settled: int, held: int, bar: str, text: str) -> None:
    status = budget_pb2.BudgetStatus(settled_nano_usd=settled, held_nano_usd=held)
    budget = budget_pb2.Budget(limit_nano_usd=1_000_000_000, status=status)
    assert usage_bar(budget).plain == f"{bar}\n{text}"


def test_names_are_shown_as_they_are() -> None:
    screen = io.StringIO()
    named = budget_pb2.Budget(budget_id="bud_1", name="a [/b] [red]c", limit_nano_usd=1)
    Console(file=screen, width=100).print(budgets_table([named]))
    assert "a [/b] [red]c" in screen.getvalue()
