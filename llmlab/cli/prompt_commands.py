"""Commands about prompts that several studies use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from llmlab.api.common.v1 import content_pb2
from llmlab.cli.app import AsJson, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.listing import taken
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.saved import prompt_id_of
from llmlab.cli.studies import load_prompt
from llmlab.cli.tables import empty_table

prompts = typer.Typer(help="Keep prompts that several studies use: list, show, create, delete.", no_args_is_help=True)
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt's id or name.")]


@prompts.command("list", epilog="Example: llmlab prompts list")
def list_prompts(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show.")] = 50, as_json: AsJson = False
) -> None:
    """List the prompts, newest first."""

    async def command() -> None:
        async with connect() as client:
            found = await taken(client.list_prompts(), limit)
        if as_json:
            print_json([to_plain(each) for each in found])
            return
        if not found:
            hint("No prompts yet. `llmlab prompts create FILE.yaml` makes one.")
            return
        table = empty_table("Prompts", [("prompt", False), ("name", False), ("messages", True)])
        for each in found:
            table.add_row(each.prompt_id, escape(each.name), str(each.message_count))
        console.print(table)

    run_async(command())


@prompts.command("show", epilog="Example: llmlab prompts show capital")
def show_prompt(prompt: Prompt, as_json: AsJson = False) -> None:
    """Show the messages of a prompt."""

    async def command() -> None:
        async with connect() as client:
            found = await client.get_prompt(await prompt_id_of(client, prompt))
        if as_json:
            print_json(to_plain(found))
            return
        table = empty_table(escape(f"{found.name} ({found.prompt_id})"), [("role", False), ("text", False)])
        for each in found.messages:
            table.add_row(content_pb2.Role.Name(each.role).removeprefix("ROLE_").lower(), escape(each.text))
        console.print(table)

    run_async(command())


@prompts.command("create", epilog="Example: llmlab prompts create examples/prompt.yaml")
def create_prompt(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A prompt as in a study, with its `name`.")],
    as_json: AsJson = False,
) -> None:
    """Create a prompt from a file, or find the one with the same messages.

    A study takes a copy with `- saved: NAME` among its prompts, each time that it is run.
    """

    async def command() -> None:
        read = load_prompt(file)
        async with connect() as client:
            answer = await client.create_prompt(read.name, read.messages)
        made = answer.prompt
        if as_json:
            print_json(to_plain(answer))
        elif answer.created:
            hint(f"Prompt {made.prompt_id} is there; a study takes it with `- saved: {made.name}` among its prompts.")
        else:
            hint(f"These messages are the prompt {made.name!r} already ({made.prompt_id}); nothing was created.")

    run_async(command())


@prompts.command("delete", epilog="Example: llmlab prompts delete capital")
def delete_prompt(prompt: Prompt, as_json: AsJson = False) -> None:
    """Delete a prompt; experiments that have taken it keep their copy."""

    async def command() -> None:
        async with connect() as client:
            prompt_id = await prompt_id_of(client, prompt)
            await client.delete_prompt(prompt_id)
        if as_json:
            print_json({"deleted": prompt_id})
        else:
            hint(f"Prompt {prompt_id} is deleted.")

    run_async(command())
