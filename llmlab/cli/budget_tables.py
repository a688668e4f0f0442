"""How budgets are shown."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from llmlab.api.cost.v1 import budget_pb2
from llmlab.cli import figures, money

BAR_CHARACTERS = 20
_SCOPE_NAMES = {"user_id": "user", "key_id": "key", "run_id": "run", "tag": "tag", "model": "model"}


def scope_text(scope: budget_pb2.BudgetScope) -> str:
    """Formats a scope: "user usr_1, tag team=research", or "project"."""
    parts = [f"{_SCOPE_NAMES[field.name]} {value}" for field, value in scope.ListFields()]
    return ", ".join(parts) or "project"


def budgets_table(found: Iterable[budget_pb2.Budget]) -> Table:
    """Builds the list of budgets; an entry has four lines, so that it fits a narrow terminal."""
    table = Table(title="Budgets", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("budget", overflow="fold")
    table.add_column("used")
    for budget in found:
        kind = "soft: only alerts" if budget.soft else "hard"
        table.add_row(
            escape(f"{budget.name}\n{budget.budget_id}\n{scope_text(budget.scope)}\n{kind}"),
            Text.assemble(usage_bar(budget), f"\n{_amounts(budget)}\n{reset_text(budget)}\n{_alerts_text(budget)}"),
            end_section=True,
        )
    return table


def usage_bar(budget: budget_pb2.Budget) -> Text:
    """Draws what is settled (full) and held (light) of the limit in its period, and says the settled part of it."""
    settled, held = budget.status.settled_nano_usd, budget.status.held_nano_usd
    full = max(0, min(BAR_CHARACTERS, settled * BAR_CHARACTERS // budget.limit_nano_usd))
    light = min(BAR_CHARACTERS - full, -(-held * BAR_CHARACTERS // budget.limit_nano_usd))
    percent = settled * 100 // budget.limit_nano_usd
    colour = "red" if percent >= 100 else "yellow" if percent >= 80 else "green"
    text = Text("█" * full, style=colour)
    text.append("▒" * light + "·" * (BAR_CHARACTERS - full - light))
    period = f" in {budget.status.period}" if budget.status.HasField("resets_at") else ""
    return text.append(f" {percent} %{period}", style="default")


def reset_text(budget: budget_pb2.Budget) -> str:
    """Says when the budget begins anew, by the clock of its own zone: "resets 2026-12-01 00:00 Europe/Berlin"."""
    status = budget.status
    if not status.HasField("resets_at"):
        return "never resets"
    return f"resets {figures.local_time(status.resets_at, budget.time_zone)}"


def _amounts(budget: budget_pb2.Budget) -> str:
    held = f", {money.dollars(budget.status.held_nano_usd)} held" if budget.status.held_nano_usd else ""
    return f"{money.dollars(budget.status.settled_nano_usd)} of {money.dollars(budget.limit_nano_usd)}{held}"


def _alerts_text(budget: budget_pb2.Budget) -> str:
    return f"alerts at {', '.join(str(percent) for percent in budget.thresholds_percent)} %"
