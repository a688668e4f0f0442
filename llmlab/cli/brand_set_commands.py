"""Commands about brand sets: brands that several studies look for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from llmlab.cli.app import AsJson, console, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.saved import BRAND_SETS, find_id, saved_commands, tell_created
from llmlab.cli.studies import load_brand_set
from llmlab.cli.tables import empty_table

brandsets = saved_commands(BRAND_SETS, "Keep brands that several studies look for")
BrandSet = Annotated[str, typer.Argument(metavar="SET", help="The brand set's id or name.")]


@brandsets.command("show", epilog="Example: llmlab brandsets show payments")
def show_set(brand_set: BrandSet, as_json: AsJson = False) -> None:
    """Show the brands of a set."""

    async def command() -> None:
        async with connect() as client:
            found = await client.get_brand_set(await find_id(client, BRAND_SETS, brand_set))
        if as_json:
            print_json(to_plain(found))
            return
        headings = ("brand", "aliases", "excluded contexts", "domains")
        table = empty_table(escape(f"{found.name} ({found.brand_set_id})"), [(each, False) for each in headings])
        for each in found.brands:
            lists = (each.aliases, each.excluded_contexts, each.domains)
            table.add_row(escape(each.name), *(escape(", ".join(texts)) for texts in lists))
        console.print(table)

    run_async(command())


@brandsets.command("create", epilog="Example: llmlab brandsets create examples/brand-set.yaml")
def create_set(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A file with `name` and `brands`.")],
    as_json: AsJson = False,
) -> None:
    """Create a brand set from a file, or find the one with the same brands.

    A study takes its brands with `brand_set: NAME`, each time that it is run.
    """

    async def command() -> None:
        name, brands = load_brand_set(file)
        async with connect() as client:
            answer = await client.create_brand_set(name, brands)
        taken_with = f"`brand_set: {answer.brand_set.name}`"
        tell_created(BRAND_SETS, answer, answer.brand_set, taken_with, as_json=as_json)

    run_async(command())
