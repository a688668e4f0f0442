"""Commands about prices: what models cost, what calls will cost, a project's own prices, pricing anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any
from uuid import uuid4

import typer
from typer.core import TyperGroup

from llmlab.api.cost.v1 import price_pb2
from llmlab.cli import figures, price_tables
from llmlab.cli.app import AsJson, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain

NANO_PER_USD = 1_000_000_000
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
    help="Show what models cost, set prices of your own, and price anew what is on record.",
    epilog="Example: llmlab prices openai/gpt-4o",
)


def _nano(text: str) -> int:
    """USD as nano-USD, exactly."""
    try:
        amount = int(Decimal(text) * NANO_PER_USD)
    except (InvalidOperation, OverflowError, ValueError):
        raise typer.BadParameter(f"{text!r} is not an amount in USD") from None
    if abs(amount) >= 2**63:
        raise typer.BadParameter(f"{text!r} is more than a price can be")
    return amount


Rate = Annotated[int | None, typer.Option(parser=_nano, metavar="USD", help="USD per million tokens.")]
Tier = Annotated[str, typer.Option("--tier", help="Service tier: batch, flex, priority; standard if left out.")]


@prices.command(epilog="Example: llmlab prices --provider anthropic")
def show(
    model: Annotated[str, typer.Argument(help="The model, as provider/model; without it, a list.")] = "",
    provider: Annotated[str, typer.Option(help="List only this provider.")] = "",
    contains: Annotated[str, typer.Option(help="List only names that contain this.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what a model costs, or list models with their prices (USD per million tokens)."""

    async def command() -> None:
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
        console.print(price_tables.list_table(listed[:LISTED_MAX]))
        if len(listed) > LISTED_MAX:
            hint(f"{len(listed) - LISTED_MAX} more: narrow the list with --provider or --contains, or take --json.")

    run_async(command())


@prices.command("set", epilog="Example: llmlab prices set my-vllm/qwen --input 0.10 --output 0.30")
def set_price(
    model: Annotated[str, typer.Argument(help="provider/model, or provider/* for all of a provider.")],
    input_usd: Annotated[int, typer.Option("--input", parser=_nano, metavar="USD", help="Per million; 0 if free.")],
    output_usd: Annotated[int, typer.Option("--output", parser=_nano, metavar="USD", help="Per million; 0 if free.")],
    cache_read: Rate = None,
    cache_write_5m: Rate = None,
    cache_write_1h: Rate = None,
    input_audio: Rate = None,
    reasoning: Rate = None,
    output_audio: Rate = None,
    per_request: Annotated[int, typer.Option(parser=_nano, metavar="USD", help="A fee for every call.")] = 0,
    per_step: Annotated[int, typer.Option(parser=_nano, metavar="USD", help="A fee for every step.")] = 0,
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
            model=model, service_tier=tier, tiers=[rates], request_nano_usd=per_request, step_nano_usd=per_step
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
        else:
            console.print(price_tables.override_table(found))

    run_async(command())


@prices.command()
def unset(
    override_id: Annotated[str, typer.Argument(help='The id of a price of your own ("ovr_...").')],
    as_json: AsJson = False,
) -> None:
    """End a price of your own: calls from now on are priced without it."""

    async def command() -> None:
        async with connect() as client:
            ended = await client.delete_price_override(override_id)
        if as_json:
            print_json(to_plain(ended))
        else:
            console.print(price_tables.override_table([ended]))

    run_async(command())


@prices.command(epilog="Example: llmlab prices reprice --days 7 --model openai/gpt-4o --apply")
def reprice(
    days: Annotated[int, typer.Option(min=1, max=400, help="How many days back.")] = 30,
    model: Annotated[str, typer.Option(help="Only this model, as provider/model.")] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Apply it; without, only show what would change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Price what is on record by the prices of now: show the difference, or apply it."""

    async def command() -> None:
        end = datetime.now(UTC)
        start = end - timedelta(days=days)
        provider, _, name = model.partition("/")
        async with connect() as client:
            seen = await client.preview_repricing(start, end, provider=provider, model=name)
            if not apply:
                if as_json:
                    print_json(to_plain(seen))
                    return
                console.print(price_tables.difference_table(seen))
                hint("Nothing was changed; add --apply to apply it.")
                return
            done = await client.apply_repricing(uuid4().hex, start, end, provider=provider, model=name)
        if as_json:
            print_json(to_plain(done))
            return
        console.print(price_tables.repricing_table([done]))
        hint(f"`llmlab prices reverse {done.repricing_id}` takes it back.")

    run_async(command())


@prices.command()
def repricings(as_json: AsJson = False) -> None:
    """List what was priced anew."""

    async def command() -> None:
        async with connect() as client:
            found = [repricing async for repricing in client.list_repricings()]
        if as_json:
            print_json([to_plain(repricing) for repricing in found])
        else:
            console.print(price_tables.repricing_table(found))

    run_async(command())


@prices.command()
def reverse(
    repricing_id: Annotated[str, typer.Argument(help='The id of a repricing ("rpr_...").')],
    as_json: AsJson = False,
) -> None:
    """Take a repricing back: sums are what they were before it."""

    async def command() -> None:
        async with connect() as client:
            done = await client.reverse_repricing(repricing_id)
        if as_json:
            print_json(to_plain(done))
        else:
            console.print(price_tables.repricing_table([done]))

    run_async(command())


def estimate(
    model: Annotated[str, typer.Argument(help="The model, as provider/model.")],
    input_tokens: Annotated[int, typer.Option(min=0, help="Input of one call.")] = 0,
    output_tokens: Annotated[int, typer.Option(min=0, help="Limit of the output of one answer.")] = 0,
    expected_output_tokens: Annotated[
        int | None, typer.Option(min=0, help="Output expected of one answer; the limit if left out.")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="How many calls.")] = 1,
    answers: Annotated[int, typer.Option(min=1, help="Answers to one call.")] = 1,
    steps: Annotated[int, typer.Option(min=0, help="Steps of an automation at most.")] = 0,
    tier: Tier = "",
    as_json: AsJson = False,
) -> None:
    """Say what calls are likely to cost, and what they can cost at most, before they are made."""

    async def command() -> None:
        item = price_pb2.EstimateItem(
            model=model,
            input_tokens=input_tokens,
            max_output_tokens=output_tokens,
            expected_output_tokens=expected_output_tokens,
            calls=calls,
            answers=answers,
            max_steps=steps,
            service_tier=tier,
        )
        async with connect() as client:
            found = await client.estimate_cost([item])
        if as_json:
            print_json(to_plain(found))
            return
        console.print(price_tables.estimate_table(found.items[0]))
        expected, worst = figures.dollars(found.expected_nano_usd), figures.dollars(found.worst_case_nano_usd)
        console.print(f"expected {expected}, at most {worst} ({calls:,} calls)", highlight=False)

    run_async(command())
