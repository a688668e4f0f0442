"""Commands about prices: what models cost, and a project's own prices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import typer
from typer.core import TyperGroup

from llmlab.api.cost.v1 import price_pb2
from llmlab.cli import price_tables
from llmlab.cli.app import AsJson, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.money import amount_of
from llmlab.cli.options import Tier, refuse
from llmlab.cli.plain import print_json, to_plain

LISTED_MAX = 40
"""Models that a table of many shows; --json has them all."""
DATE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


class ShowByDefault(TyperGroup):
    """`prices MODEL` and `prices --provider X` are `prices show ...`: what is asked for most needs no word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the word in where no other command is named."""
        if "--help" not in args[:1] and (not args or args[0] not in self.commands):
            args = ["show", *args]
        return super().parse_args(ctx, args)


prices = typer.Typer(
    cls=ShowByDefault,
    help="Show what models cost, set prices of your own, and price again what is on record.",
    epilog="Example: llmlab prices openai/gpt-4o",
)


_TIER = price_pb2.OverrideTier.DESCRIPTOR
_OVERRIDE = price_pb2.PriceOverride.DESCRIPTOR
_rate_of = amount_of(_TIER, "input_nano_usd_per_mtok")


def _rate(meaning: str) -> Any:
    return typer.Option(parser=_rate_of, metavar="USD", help=f"{meaning}, USD per million tokens.")


def _fee(field: str, meaning: str) -> Any:
    return typer.Option(parser=amount_of(_OVERRIDE, field), metavar="USD", help=f"{meaning}, USD.")


@prices.command(epilog="Example: llmlab prices --provider anthropic")
def show(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The model, as provider/model; without it, a list.")
    ] = "",
    provider: Annotated[str, typer.Option(help="List only this provider.")] = "",
    contains: Annotated[str, typer.Option(help="List only names that contain this.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what a model costs, or list models with their prices (USD per million tokens)."""

    async def command() -> None:
        if model:
            refuse("can't be used with a model's name", provider=provider, contains=contains)
        async with connect() as client:
            if model:
                found = await client.get_model_price(model)
                if as_json:
                    print_json(to_plain(found))
                else:
                    console.print(price_tables.model_table(found))
                return
            listed = [entry async for entry in client.list_prices(provider=provider, name_contains=contains)]
        if as_json:
            print_json([to_plain(entry) for entry in listed])
            return
        if not listed:
            hint("No model with a price matches. `llmlab prices` lists all; `llmlab prices set` makes one of your own.")
            return
        console.print(price_tables.list_table(listed[:LISTED_MAX]))
        if len(listed) > LISTED_MAX:
            hint(f"{len(listed) - LISTED_MAX} more: narrow the list with --provider or --contains, or take --json.")

    run_async(command())


@prices.command("set", epilog="Example: llmlab prices set my-vllm/qwen --input 0.10 --output 0.30")
def set_price(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="provider/model, or provider/* for all of a provider.")],
    input_usd: Annotated[
        int, typer.Option("--input", parser=_rate_of, metavar="USD", help="USD per million input tokens; 0 if free.")
    ],
    output_usd: Annotated[
        int, typer.Option("--output", parser=_rate_of, metavar="USD", help="USD per million output tokens; 0 if free.")
    ],
    cache_read: Annotated[int | None, _rate("Input read from the cache")] = None,
    cache_write_5m: Annotated[int | None, _rate("Input written to the 5-minute cache")] = None,
    cache_write_1h: Annotated[int | None, _rate("Input written to the 1-hour cache")] = None,
    input_audio: Annotated[int | None, _rate("Audio input")] = None,
    reasoning: Annotated[int | None, _rate("Reasoning output")] = None,
    output_audio: Annotated[int | None, _rate("Audio output")] = None,
    per_request: Annotated[int | None, _fee("request_nano_usd", "A fee for every call")] = None,
    per_step: Annotated[int | None, _fee("step_nano_usd", "A fee for every step of an automation")] = None,
    tier: Tier = "",
    since: Annotated[
        datetime | None, typer.Option("--from", formats=DATE_FORMATS, help="For calls from this time on, UTC; or now.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set a price of your own (USD); --input and --output have to be given, other kinds cost the same unless named."""

    async def command() -> None:
        rates = price_pb2.OverrideTier(
            input_nano_usd_per_mtok=input_usd,
            output_nano_usd_per_mtok=output_usd,
            cache_read_nano_usd_per_mtok=cache_read,
            cache_write_5m_nano_usd_per_mtok=cache_write_5m,
            cache_write_1h_nano_usd_per_mtok=cache_write_1h,
            input_audio_nano_usd_per_mtok=input_audio,
            reasoning_nano_usd_per_mtok=reasoning,
            output_audio_nano_usd_per_mtok=output_audio,
        )
        wanted = price_pb2.PriceOverride(
            model=model,
            service_tier=tier,
            tiers=[rates],
            request_nano_usd=per_request or 0,
            step_nano_usd=per_step or 0,
        )
        if since is not None:
            wanted.effective_from.FromDatetime(since.replace(tzinfo=UTC))
        async with connect() as client:
            made = await client.create_price_override(wanted, request_id=uuid4().hex)
        if as_json:
            print_json(to_plain(made))
            return
        console.print(price_tables.override_table([made]))
        if since is not None:
            hint("Calls on record keep their price; `llmlab prices reprice` shows what would change.")

    run_async(command())


@prices.command()
def overrides(as_json: AsJson = False) -> None:
    """List your own prices, ended ones too."""

    async def command() -> None:
        async with connect() as client:
            found = [override async for override in client.list_price_overrides()]
        if as_json:
            print_json([to_plain(override) for override in found])
        elif found:
            console.print(price_tables.override_table(found))
        else:
            hint("No prices of your own. `llmlab prices set MODEL --input 0.10 --output 0.30` makes one.")

    run_async(command())


@prices.command(epilog="Example: llmlab prices unset ovr_01m7yj9h9szgf4v88nxt8k9yvb")
def unset(
    override_id: Annotated[
        str,
        typer.Argument(metavar="OVERRIDE", help="The id, ovr_..., as `llmlab prices overrides` lists it."),
    ],
    as_json: AsJson = False,
) -> None:
    """End a price of your own: calls from now on are priced without it. Ending it again changes nothing."""

    async def command() -> None:
        async with connect() as client:
            before = [one async for one in client.list_price_overrides() if one.override_id == override_id]
            ended = await client.delete_price_override(override_id)
        if as_json:
            print_json(to_plain(ended))
        else:
            console.print(price_tables.override_table([ended]))
        if before and before[0].HasField("ended_at"):
            hint("It had ended before; nothing was changed.")
        else:
            hint("Calls on record keep their price; `llmlab prices reprice` shows what would change.")

    run_async(command())
