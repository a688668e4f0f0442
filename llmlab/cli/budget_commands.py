"""Commands about budgets: list, show, create, update, delete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from llmlab.api.cost.v1 import budget_pb2
from llmlab.cli import figures
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, notes, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import enum_name, print_json, to_plain

NANO_USD = 1_000_000_000
AMOUNT_MAX_NANO_USD = 2**63 - 1
"""What a request can carry; the service has a lower limit."""
BAR_CHARACTERS = 20
PERIODS = {
    enum_name(budget_pb2.BudgetPeriod.DESCRIPTOR, number).lower(): number
    for number in budget_pb2.BudgetPeriod.values()
    if number != budget_pb2.BUDGET_PERIOD_UNSPECIFIED
}

BudgetId = Annotated[str, typer.Argument(help="The budget's id, bud_...")]
Limit = Annotated[str, typer.Option(help="What may be spent in each period, for example 10usd or 0.5.")]
Name = Annotated[str, typer.Option(help="A name for people; made from the scope and period if absent.")]
User = Annotated[str, typer.Option("--user", help="Only calls of this user, usr_...")]
Key = Annotated[str, typer.Option("--key", help="Only calls with this API key, key_...")]
Tag = Annotated[str, typer.Option("--tag", help="Only calls with this tag, key=value.")]
Model = Annotated[str, typer.Option("--model", help="Only calls of this model, provider/model.")]
Run = Annotated[str, typer.Option("--run", help="Only calls of this run, run_...")]
Thresholds = Annotated[
    list[int] | None, typer.Option("--threshold", help="Raise an alert at this percentage; may be repeated.")
]

app = typer.Typer(invoke_without_command=True, help="List the project's budgets; limit what may be spent.")


@app.callback()
def budgets(
    context: typer.Context,
    user: User = "",
    key: Key = "",
    tag: Tag = "",
    model: Model = "",
    run: Run = "",
    as_json: AsJson = False,
) -> None:
    """List the project's budgets, or those of a scope; limit what may be spent."""
    if context.invoked_subcommand is not None:
        return

    async def command() -> None:
        scope = budget_pb2.BudgetScope(user_id=user, key_id=key, tag=tag, model=model, run_id=run)
        async with connect() as client:
            found = [budget async for budget in client.list_budgets(scope)]
        if as_json:
            print_json([to_plain(budget) for budget in found])
            return
        if not found:
            notes.print("No budgets. Make one: llmlab budgets create --limit 10usd", highlight=False)
            return
        console.print(budgets_table(found))

    run_async(command())


@app.command(epilog="Example: llmlab budgets create --limit 10usd --period monthly --tag team=research --threshold 80")
def create(
    limit: Limit,
    name: Name = "",
    period: Annotated[str, typer.Option(help=f"How long a period is: {', '.join(PERIODS)}.")] = "monthly",
    time_zone: Annotated[str, typer.Option(help="The IANA zone whose calendar makes the periods.")] = "UTC",
    user: User = "",
    key: Key = "",
    tag: Tag = "",
    model: Model = "",
    run: Run = "",
    soft: Annotated[bool, typer.Option("--soft", help="Refuse nothing, only raise alerts.")] = False,
    threshold: Thresholds = None,
    as_json: AsJson = False,
) -> None:
    """Create a budget; without a scope it is on the whole project."""

    async def command() -> None:
        if period not in PERIODS:
            raise CommandError(f"--period takes {', '.join(PERIODS)}, not {period!r}.", EXIT_USAGE)
        scope = budget_pb2.BudgetScope(user_id=user, key_id=key, tag=tag, model=model, run_id=run)
        async with connect() as client:
            made = await client.create_budget(
                name or f"{scope_text(scope)} {period}"[:100],
                nano_usd_of(limit),
                scope=scope,
                period=PERIODS[period],
                time_zone=time_zone,
                soft=soft,
                thresholds_percent=threshold or (),
            )
        _print([made], as_json)

    run_async(command())


@app.command(epilog="Example: llmlab budgets show bud_01m7y99n267c8r0j0yrk3z9d1k")
def show(budget_id: BudgetId, as_json: AsJson = False) -> None:
    """Show one budget."""

    async def command() -> None:
        async with connect() as client:
            found = await client.get_budget(budget_id)
        _print([found], as_json)

    run_async(command())


@app.command(epilog="Example: llmlab budgets update bud_01m7y99n267c8r0j0yrk3z9d1k --limit 20usd")
def update(
    budget_id: BudgetId,
    limit: Limit = "",
    name: Annotated[str, typer.Option(help="A new name.")] = "",
    soft: Annotated[bool | None, typer.Option("--soft/--hard", help="Refuse nothing, or refuse what does not fit.")] = (
        None
    ),
    threshold: Thresholds = None,
    as_json: AsJson = False,
) -> None:
    """Change a budget's limit, name, thresholds, or whether it refuses calls."""

    async def command() -> None:
        wanted = budget_pb2.Budget(budget_id=budget_id, name=name, soft=bool(soft), thresholds_percent=threshold or ())
        if limit:
            wanted.limit_nano_usd = nano_usd_of(limit)
        given = {
            "name": bool(name),
            "limit_nano_usd": bool(limit),
            "soft": soft is not None,
            "thresholds_percent": bool(threshold),
        }
        if not any(given.values()):
            raise CommandError("Say what to change: --limit, --name, --soft, --hard or --threshold.", EXIT_USAGE)
        async with connect() as client:
            changed = await client.update_budget(wanted, [field for field, there in given.items() if there])
        _print([changed], as_json)

    run_async(command())


@app.command(epilog="Example: llmlab budgets delete bud_01m7y99n267c8r0j0yrk3z9d1k")
def delete(budget_id: BudgetId, as_json: AsJson = False) -> None:
    """Delete a budget; calls under way go on."""

    async def command() -> None:
        async with connect() as client:
            await client.delete_budget(budget_id)
        if as_json:
            print_json({"deleted": budget_id})
        else:
            notes.print(f"Deleted {budget_id}.", highlight=False)

    run_async(command())


def nano_usd_of(text: str) -> int:
    """Reads an amount such as 10usd, $10 or 0.5; CommandError for anything else, and for fractions of a nano-dollar."""
    number = text.strip().lower().removesuffix("usd").removeprefix("$").strip().replace("_", "")
    try:
        amount = Decimal(number) * NANO_USD
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount != int(amount) or abs(amount) > AMOUNT_MAX_NANO_USD:
        raise CommandError(f"{text!r} is not an amount; write one such as 10usd or 0.5.", EXIT_USAGE)
    return int(amount)


def scope_text(scope: budget_pb2.BudgetScope) -> str:
    """Formats a scope: "user usr_1, tag team=research", or "project"."""
    names = {"user_id": "user", "key_id": "key", "run_id": "run", "tag": "tag", "model": "model"}
    parts = [f"{names[field.name]} {value}" for field, value in scope.ListFields()]
    return ", ".join(parts) or "project"


def budgets_table(found: Iterable[budget_pb2.Budget]) -> Table:
    """Builds the list of budgets; an entry has two lines, so that it fits a narrow terminal."""
    table = Table(title="Budgets", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for heading, numeric in (("budget\nid", False), ("scope", False), ("period\nresets", False), ("used", False)):
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    table.add_column("of limit\nheld", justify="right", no_wrap=True)
    for budget in found:
        status = budget.status
        resets = (
            f"{status.resets_at.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M}" if status.HasField("resets_at") else "never"
        )
        table.add_row(
            escape(f"{budget.name}\n{budget.budget_id}"),
            escape(f"{scope_text(budget.scope)}\n{'soft' if budget.soft else 'hard'}"),
            f"{status.period}\n{resets}",
            usage_bar(budget),
            f"{figures.dollars(budget.limit_nano_usd)}\n{figures.dollars(status.held_nano_usd)}",
        )
    return table


def usage_bar(budget: budget_pb2.Budget) -> Text:
    """Draws what is settled (full) and held (light) of the limit, with the amount below."""
    settled, held = budget.status.settled_nano_usd, budget.status.held_nano_usd
    full = min(BAR_CHARACTERS, settled * BAR_CHARACTERS // budget.limit_nano_usd)
    light = min(BAR_CHARACTERS - full, -(-held * BAR_CHARACTERS // budget.limit_nano_usd))
    percent = settled * 100 // budget.limit_nano_usd
    colour = "red" if percent >= 100 else "yellow" if percent >= 80 else "green"
    text = Text("█" * full, style=colour)
    text.append("▒" * light + "·" * (BAR_CHARACTERS - full - light))
    text.append(f"\n{figures.dollars(settled)} ({percent} %)", style="default")
    return text


def _print(found: Sequence[budget_pb2.Budget], as_json: bool) -> None:
    if as_json:
        print_json(to_plain(found[0]))
    else:
        console.print(budgets_table(found))
