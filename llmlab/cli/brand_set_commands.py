"""Commands about brand sets: brands that several studies look for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from llmlab.cli.app import AsJson, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.listing import taken
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.saved import brand_set_id_of
from llmlab.cli.studies import load_brand_set
from llmlab.cli.tables import empty_table

brandsets = typer.Typer(
    help="Keep brands that several studies look for: list, show, create, delete.", no_args_is_help=True
)
BrandSet = Annotated[str, typer.Argument(metavar="SET", help="The brand set's id or name.")]


@brandsets.command("list", epilog="Example: llmlab brandsets list")
def list_sets(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show.")] = 50, as_json: AsJson = False
) -> None:
    """List the brand sets, newest first."""

    async def command() -> None:
        async with connect() as client:
            found = await taken(client.list_brand_sets(), limit)
        if as_json:
            print_json([to_plain(each) for each in found])
            return
        if not found:
            hint("No brand sets yet. `llmlab brandsets create FILE.yaml` makes one.")
            return
        table = empty_table("Brand sets", [("brand set", False), ("name", False), ("brands", True)])
        for each in found:
            table.add_row(each.brand_set_id, escape(each.name), str(each.brand_count))
        console.print(table)

    run_async(command())


@brandsets.command("show", epilog="Example: llmlab brandsets show payments")
def show_set(brand_set: BrandSet, as_json: AsJson = False) -> None:
    """Show the brands of a set."""

    async def command() -> None:
        async with connect() as client:
            found = await client.get_brand_set(await brand_set_id_of(client, brand_set))
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
        made = answer.brand_set
        if as_json:
            print_json(to_plain(answer))
        elif answer.created:
            hint(f"Brand set {made.brand_set_id} is there; a study takes it with `brand_set: {made.name}`.")
        else:
            hint(f"These brands are the set {made.name!r} already ({made.brand_set_id}); nothing was created.")

    run_async(command())


@brandsets.command("delete", epilog="Example: llmlab brandsets delete payments")
def delete_set(brand_set: BrandSet, as_json: AsJson = False) -> None:
    """Delete a brand set; experiments that have taken its brands keep them."""

    async def command() -> None:
        async with connect() as client:
            brand_set_id = await brand_set_id_of(client, brand_set)
            await client.delete_brand_set(brand_set_id)
        if as_json:
            print_json({"deleted": brand_set_id})
        else:
            hint(f"Brand set {brand_set_id} is deleted.")

    run_async(command())
