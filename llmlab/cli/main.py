"""The entry point of the `llmlab` command."""

from __future__ import annotations

import typer

from llmlab.cli import call_commands, run_commands, server_commands

app = typer.Typer(
    name="llmlab",
    help="Know what you get from language models: quality, speed, brand mentions and cost, within a budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    server_commands.demo,
    server_commands.up,
    server_commands.status,
    server_commands.token,
    run_commands.run,
    run_commands.watch,
    run_commands.runs,
    run_commands.results,
    run_commands.export,
    run_commands.cancel,
    call_commands.chat,
    call_commands.models,
    call_commands.spend,
):
    app.command()(command)


def main() -> None:
    """Runs the command line."""
    app()
