"""What a project keeps for several studies (brand sets, prompts, datasets): found by id or name, listed, deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from llmlab.api.orchestrator.v1 import experiment_pb2
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.listing import taken
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.tables import empty_table
from llmlab.client import Client


@dataclass(frozen=True, slots=True)
class SavedKind:
    """A kind of what is kept: what one is called and made of, and the calls about it."""

    noun: str
    parts: str
    id_prefix: str
    count_field: str
    file: str
    """What `create` reads."""
    listed: Callable[..., AsyncIterator[Any]]
    delete: Callable[[Client, str], Awaitable[None]]

    @property
    def command(self) -> str:
        """The command about this kind."""
        return f"{self.noun.replace(' ', '')}s"

    def id_of(self, one: Any) -> str:
        """The id of one."""
        found: str = getattr(one, f"{self.noun.replace(' ', '_')}_id")
        return found


BRAND_SETS = SavedKind(
    "brand set", "brands", "bset_", "brand_count", "FILE.yaml", Client.list_brand_sets, Client.delete_brand_set
)
PROMPTS = SavedKind(
    "prompt", "messages", "prm_", "message_count", "FILE.yaml", Client.list_prompts, Client.delete_prompt
)
DATASETS = SavedKind("dataset", "rows", "dset_", "row_count", "FILE.csv", Client.list_datasets, Client.delete_dataset)


async def find_saved(client: Client, spec: experiment_pb2.ExperimentSpec) -> None:
    """Puts ids in the place of names, where a study names what the project keeps."""
    spec.prompt_ids[:] = [await find_id(client, PROMPTS, each) for each in spec.prompt_ids]
    if spec.dataset_id:
        spec.dataset_id = await find_id(client, DATASETS, spec.dataset_id)
    if spec.brand_set_id:
        spec.brand_set_id = await find_id(client, BRAND_SETS, spec.brand_set_id)


async def find_id(client: Client, kind: SavedKind, id_or_name: str) -> str:
    """The id of what is named by its id or its name.

    Raises:
        CommandError: There is none of that name.
    """
    if id_or_name.startswith(kind.id_prefix):
        return id_or_name
    found = await taken(kind.listed(client, name=id_or_name), 1)
    if not found:
        message = f"There is no {kind.noun} {id_or_name!r}; `llmlab {kind.command} list` lists them."
        raise CommandError(message, EXIT_USAGE)
    return kind.id_of(found[0])


def saved_commands(kind: SavedKind, purpose: str) -> typer.Typer:
    """The commands about a kind, with those that all kinds have: `list` and `delete`."""
    app = typer.Typer(help=f"{purpose}: list, show, create, delete.", no_args_is_help=True)

    def list_saved(
        limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show.")] = 50, as_json: AsJson = False
    ) -> None:
        run_async(_list(kind, limit, as_json=as_json))

    def delete_saved(
        name: Annotated[str, typer.Argument(metavar="NAME", help="Its id or name.")], as_json: AsJson = False
    ) -> None:
        run_async(_delete(kind, name, as_json=as_json))

    app.command("list", help=f"List the {kind.noun}s, newest first.", epilog=f"Example: llmlab {kind.command} list")(
        list_saved
    )
    app.command(
        "delete",
        help=f"Delete a {kind.noun}; experiments that have taken it keep their copy.",
        epilog=f"Example: llmlab {kind.command} delete NAME",
    )(delete_saved)
    return app


async def _list(kind: SavedKind, limit: int, *, as_json: bool) -> None:
    async with connect() as client:
        found = await taken(kind.listed(client), limit)
    if as_json:
        print_json([to_plain(each) for each in found])
        return
    if not found:
        hint(f"No {kind.noun}s yet. `llmlab {kind.command} create {kind.file}` makes one.")
        return
    headings = [(kind.noun, False), ("name", False), (kind.parts, True)]
    table = empty_table(f"{kind.noun.capitalize()}s", headings)
    for each in found:
        table.add_row(kind.id_of(each), escape(each.name), f"{getattr(each, kind.count_field):,}")
    console.print(table)


async def _delete(kind: SavedKind, name: str, *, as_json: bool) -> None:
    async with connect() as client:
        found = await find_id(client, kind, name)
        await kind.delete(client, found)
    if as_json:
        print_json({"deleted": found})
    else:
        hint(f"{kind.noun.capitalize()} {found} is deleted.")


def tell_created(kind: SavedKind, answer: Any, made: Any, taken_with: str, *, as_json: bool) -> None:
    """Tells what became of a `create`; `taken_with` is what a study takes it with."""
    if as_json:
        print_json(to_plain(answer))
    elif answer.created:
        hint(f"{kind.noun.capitalize()} {kind.id_of(made)} is there; a study takes it with {taken_with}.")
    else:
        hint(f"These {kind.parts} are the {kind.noun} {made.name!r} already ({kind.id_of(made)}); nothing was created.")
