"""Commands that price again what is on record: prices reprice, repricings, reverse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

import typer

from llmlab.api.cost.v1 import repricing_pb2
from llmlab.cli import price_tables
from llmlab.cli.app import AsJson, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.known_values import filter_of, window_of, without_usage
from llmlab.cli.plain import print_json, to_plain
from llmlab.client import Client

REPRICED_DAYS_DEFAULT = 30
REPRICED_DAYS_MAX = 400


def reprice(
    days: Annotated[
        int, typer.Option(min=1, max=REPRICED_DAYS_MAX, help="How many days back.")
    ] = REPRICED_DAYS_DEFAULT,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Only this model; provider/ means all of a provider's.")
    ] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Apply it; without, only show what would change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Price the calls on record again, by the prices that hold today: show the difference, or apply it."""

    async def command() -> None:
        end = datetime.now(UTC)
        start = end - timedelta(days=days)
        named = filter_of({"model": model})
        async with connect() as client:
            if not apply:
                seen = await client.preview_repricing(start, end, provider=named.provider, model=named.model)
                if as_json:
                    print_json(to_plain(seen))
                elif seen.total.calls:
                    console.print(price_tables.difference_table(seen))
                if seen.total.changed_calls:
                    hint("Nothing was changed; add --apply to apply it.")
                elif seen.total.calls:
                    hint("The calls on record have the prices that hold today; there is nothing to apply.")
                else:
                    await _tell_no_calls(client, days, model)
                return
            done = await client.apply_repricing(uuid4().hex, start, end, provider=named.provider, model=named.model)
            if as_json:
                print_json(to_plain(done))
            else:
                console.print(price_tables.repricing_table([done]))
            if not done.difference.calls:
                await _tell_no_calls(client, days, model)
            if done.difference.changed_calls:
                hint("Spend and budgets follow (`llmlab spend --by run`); runs and results keep what they cost then.")
            hint(f"`llmlab prices reverse {done.repricing_id}` takes it back.")

    run_async(command())


async def _tell_no_calls(client: Client, days: int, model: str) -> None:
    hint(f"No calls{f' of {model}' if model else ''} are on record in the last {days} days.")
    window = window_of(timedelta(days=days))
    for sentence in await without_usage(client, window, {"model": model}):
        hint(sentence)


def repricings(as_json: AsJson = False) -> None:
    """List what was priced again."""

    async def command() -> None:
        async with connect() as client:
            found = [repricing async for repricing in client.list_repricings()]
        if as_json:
            print_json([to_plain(repricing) for repricing in found])
        elif found:
            console.print(price_tables.repricing_table(found))
        else:
            hint("Nothing was priced again yet. `llmlab prices reprice` shows what would change.")

    run_async(command())


def reverse(
    repricing_id: Annotated[
        str,
        typer.Argument(metavar="REPRICING", help="The id, rpr_..., as `llmlab prices repricings` lists it."),
    ],
    as_json: AsJson = False,
) -> None:
    """Take a repricing back: sums are what they were before it. Taking it back again changes nothing."""

    async def command() -> None:
        async with connect() as client:
            before = [one async for one in client.list_repricings() if one.repricing_id == repricing_id]
            done = await client.reverse_repricing(repricing_id)
        if as_json:
            print_json(to_plain(done))
        else:
            console.print(price_tables.repricing_table([done]))
        if before and before[0].state == repricing_pb2.REPRICING_STATE_REVERSED:
            hint("It had been taken back before; nothing was changed.")

    run_async(command())
