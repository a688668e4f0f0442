"""Commands about prompts that several studies use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from llmlab.api.common.v1 import content_pb2
from llmlab.cli.app import AsJson, console, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import enum_name, print_json, to_plain
from llmlab.cli.saved import PROMPTS, find_id, saved_commands, tell_created
from llmlab.cli.studies import load_prompt
from llmlab.cli.tables import empty_table

prompts = saved_commands(PROMPTS, "Keep prompts that several studies use")
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt's id or name.")]


@prompts.command("show", epilog="Example: llmlab prompts show capital")
def show_prompt(prompt: Prompt, as_json: AsJson = False) -> None:
    """Show the messages of a prompt."""

    async def command() -> None:
        async with connect() as client:
            found = await client.get_prompt(await find_id(client, PROMPTS, prompt))
        if as_json:
            print_json(to_plain(found))
            return
        table = empty_table(escape(f"{found.name} ({found.prompt_id})"), [("role", False), ("text", False)])
        for each in found.messages:
            table.add_row(enum_name(content_pb2.Role.DESCRIPTOR, each.role).lower(), escape(each.text))
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
        taken_with = f"`- saved: {answer.prompt.name}` among its prompts"
        tell_created(PROMPTS, answer, answer.prompt, taken_with, as_json=as_json)

    run_async(command())
