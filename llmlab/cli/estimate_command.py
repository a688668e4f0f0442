"""The command that says what calls will cost: estimate."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmlab.api.cost.v1 import price_pb2
from llmlab.cli import money, price_tables
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.contract import bounds_of
from llmlab.cli.options import Tier
from llmlab.cli.plain import print_json, to_plain

_ITEM = price_pb2.EstimateItem.DESCRIPTOR


def _count(field: str, meaning: str, low: int = 0) -> Any:
    return typer.Option(min=low, max=bounds_of(_ITEM, field).high, help=meaning)


def estimate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model, as provider/model.")],
    input_tokens: Annotated[int, _count("input_tokens", "Input of one call, tokens.")] = 0,
    output_tokens: Annotated[int, _count("max_output_tokens", "Limit of the output of one answer, tokens.")] = 0,
    expected_output_tokens: Annotated[
        int | None,
        _count("expected_output_tokens", "Output expected of one answer, tokens; the limit if left out."),
    ] = None,
    calls: Annotated[int, _count("calls", "How many calls.", low=1)] = 1,
    answers: Annotated[int, _count("answers", "Answers to one call.", low=1)] = 1,
    steps: Annotated[int, _count("max_steps", "Steps of an automation at most.")] = 0,
    tier: Tier = "",
    as_json: AsJson = False,
) -> None:
    """Say what calls are likely to cost, and what they can cost at most, before they are made."""

    async def command() -> None:
        if not (input_tokens or output_tokens or steps):
            example = f"llmlab estimate {model} --input-tokens 2000 --output-tokens 500"
            raise CommandError(f"Say how large a call is, for example `{example}`.", EXIT_USAGE)
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
        expected, worst = money.dollars(found.expected_nano_usd), money.dollars(found.worst_case_nano_usd)
        console.print(f"{_calls(calls)}: expected {expected}, at most {worst}", highlight=False)
        if not (output_tokens or steps):
            hint("Only the input is counted; --output-tokens adds the answers.")

    run_async(command())


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count:,} calls"
