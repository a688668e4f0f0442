"""Commands about budgets: list, show, create, update, delete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import typer

from llmlab.api.cost.v1 import budget_pb2
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.budget_tables import budgets_table, scope_text
from llmlab.cli.connection import connect
from llmlab.cli.contract import bounds_of, items_max
from llmlab.cli.known_values import window_of, without_usage
from llmlab.cli.money import amount_of
from llmlab.cli.options import Key, RunScope, Tag, TimeZone, User
from llmlab.cli.plain import enum_name, print_json, to_plain
from llmlab.cli.run_choice import run_id_of
from llmlab.client import Client

NAME_CHARACTERS_MAX = 100
KNOWN_USAGE = timedelta(days=30)
"""How far back is looked for usage under the scope of a new budget."""
PERIODS = {
    enum_name(budget_pb2.BudgetPeriod.DESCRIPTOR, number).lower(): number
    for number in budget_pb2.BudgetPeriod.values()
    if number != budget_pb2.BUDGET_PERIOD_UNSPECIFIED
}
_BUDGET = budget_pb2.Budget.DESCRIPTOR
_PERCENT = bounds_of(_BUDGET, "thresholds_percent")
_THRESHOLDS_MAX = items_max(_BUDGET, "thresholds_percent")

BudgetId = Annotated[str, typer.Argument(metavar="BUDGET", help="The budget's id, bud_...")]
Model = Annotated[str, typer.Option("--model", metavar="MODEL", help="Only calls of this model, provider/model.")]
Name = Annotated[str, typer.Option(help="A name for people; made from the scope and period if absent.")]
Limit = Annotated[
    int,
    typer.Option(
        parser=amount_of(_BUDGET, "limit_nano_usd"),
        metavar="USD",
        help="What may be spent in each period, in USD: 10, 10usd or 0.5.",
    ),
]
NewLimit = Annotated[
    int | None,
    typer.Option("--limit", parser=amount_of(_BUDGET, "limit_nano_usd"), metavar="USD", help="A new limit, in USD."),
]
Thresholds = Annotated[
    list[int] | None,
    typer.Option(
        "--threshold",
        metavar="PERCENT",
        min=_PERCENT.low,
        max=_PERCENT.high,
        help=f"Raise an alert at this part of the limit; up to {_THRESHOLDS_MAX} times. 50, 80 and 100 if absent.",
    ),
]

app = typer.Typer(invoke_without_command=True, help="List the project's budgets; limit what may be spent.")


@app.callback()
def budgets(
    context: typer.Context,
    user: User = "",
    key: Key = "",
    tag: Tag = "",
    model: Model = "",
    run: RunScope = "",
    as_json: AsJson = False,
) -> None:
    """List the project's budgets, or those of a scope; limit what may be spent."""
    named = {"user": user, "key": key, "tag": tag, "model": model, "run": run}
    if context.invoked_subcommand is not None:
        before = [f"--{name}" for name, value in {**named, "json": as_json}.items() if value]
        if before:
            raise typer.BadParameter(f"write {' '.join(before)} after {context.invoked_subcommand!r}")
        return

    async def command() -> None:
        async with connect() as client:
            scope = await _scope(client, named)
            found = [budget async for budget in client.list_budgets(scope)]
        if as_json:
            print_json([to_plain(budget) for budget in found])
        elif found:
            console.print(budgets_table(found))
        elif any(named.values()):
            hint(f"No budget is for {scope_text(scope)}. `llmlab budgets` lists all.")
        else:
            hint("No budgets yet. `llmlab budgets create --limit 10usd` makes one for the project and month.")

    run_async(command())


@app.command(epilog="Example: llmlab budgets create --limit 10usd --period monthly --tag team=research --threshold 80")
def create(
    limit: Limit,
    name: Name = "",
    period: Annotated[str, typer.Option(help=f"How long a period is: {', '.join(PERIODS)}.")] = "monthly",
    time_zone: TimeZone = "UTC",
    user: User = "",
    key: Key = "",
    tag: Tag = "",
    model: Model = "",
    run: RunScope = "",
    soft: Annotated[bool, typer.Option("--soft", help="Refuse nothing, only raise alerts.")] = False,
    threshold: Thresholds = None,
    as_json: AsJson = False,
) -> None:
    """Create a budget; without a scope it is on the whole project."""

    async def command() -> None:
        if period not in PERIODS:
            raise CommandError(f"--period takes {', '.join(PERIODS)}, not {period!r}.", EXIT_USAGE)
        thresholds = _distinct(threshold)
        named = {"user": user, "key": key, "tag": tag, "model": model, "run": run}
        async with connect() as client:
            scope = await _scope(client, named)
            made = await client.create_budget(
                name or f"{scope_text(scope)} {period}"[:NAME_CHARACTERS_MAX],
                limit,
                scope=scope,
                period=PERIODS[period],
                time_zone=time_zone,
                soft=soft,
                thresholds_percent=thresholds,
            )
            _print(made, as_json)
            window = window_of(KNOWN_USAGE)
            for sentence in await without_usage(client, window, {**named, "run": scope.run_id}):
                hint(f"In the last {KNOWN_USAGE.days} days {sentence}")

    run_async(command())


@app.command(epilog="Example: llmlab budgets show bud_01m7y99n267c8r0j0yrk3z9d1k")
def show(budget_id: BudgetId, as_json: AsJson = False) -> None:
    """Show one budget."""

    async def command() -> None:
        async with connect() as client:
            found = await client.get_budget(budget_id)
        _print(found, as_json)

    run_async(command())


@app.command(epilog="Example: llmlab budgets update bud_01m7y99n267c8r0j0yrk3z9d1k --limit 20usd")
def update(
    budget_id: BudgetId,
    limit: NewLimit = None,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    soft: Annotated[bool | None, typer.Option("--soft/--hard", help="Refuse nothing, or refuse what does not fit.")] = (
        None
    ),
    threshold: Thresholds = None,
    as_json: AsJson = False,
) -> None:
    """Change a budget's limit, name, thresholds, or whether it refuses calls."""

    async def command() -> None:
        given = {
            "name": name is not None,
            "limit_nano_usd": limit is not None,
            "soft": soft is not None,
            "thresholds_percent": bool(threshold),
        }
        if not any(given.values()):
            raise CommandError("Say what to change: --limit, --name, --soft, --hard or --threshold.", EXIT_USAGE)
        wanted = budget_pb2.Budget(
            budget_id=budget_id,
            name=name or "",
            limit_nano_usd=limit or 0,
            soft=bool(soft),
            thresholds_percent=_distinct(threshold),
        )
        async with connect() as client:
            changed = await client.update_budget(wanted, [field for field, there in given.items() if there])
        _print(changed, as_json)

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
            hint(f"Budget {budget_id} is deleted.")

    run_async(command())


async def _scope(client: Client, named: Mapping[str, str]) -> budget_pb2.BudgetScope:
    return budget_pb2.BudgetScope(
        user_id=named["user"],
        key_id=named["key"],
        tag=named["tag"],
        model=named["model"],
        run_id=await run_id_of(client, named["run"]),
    )


def _distinct(thresholds: list[int] | None) -> list[int]:
    distinct = sorted(set(thresholds or ()))
    if len(distinct) > _THRESHOLDS_MAX:
        raise CommandError(f"--threshold can be given {_THRESHOLDS_MAX} times, not {len(distinct)}.", EXIT_USAGE)
    return distinct


def _print(budget: budget_pb2.Budget, as_json: bool) -> None:
    if as_json:
        print_json(to_plain(budget))
    else:
        console.print(budgets_table([budget]))
