"""What every command shares: running asynchronously, turning errors into one clear line, output formats."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from llmlab.cli.embedded import EmbeddedError
from llmlab.cli.fields import option_of
from llmlab.cli.interrupts import Interrupted, interruptible
from llmlab.cli.program import spelled
from llmlab.cli.study_files import StudyError
from llmlab.client import LlmlabError

EXIT_FAILED = 1
EXIT_USAGE = 2
NEXT_STEPS = {
    "BUDGET_EXCEEDED": "`llmlab budgets` shows what is left; `llmlab budgets update BUDGET --limit USD` raises it.",
    "UNPRICED": "`llmlab prices --contains NAME` looks for a model's price; `llmlab prices set` makes one of your own.",
}
"""What to type next, by the reason of a refusal."""

WIDTH_MIN = 80
"""Tables are made for it: on a narrower screen their lines are broken, but nothing of them is left out."""

console = Console()
console.width = max(console.width, WIDTH_MIN)
# What is not a result goes to standard error, so that `--json` and exports can be piped.
notes = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]


def redraws() -> bool:
    """Whether output may be drawn again in its place: on a terminal with room for its lines."""
    return console.is_terminal and notes.width >= WIDTH_MIN


class CommandError(Exception):
    """Ends a command with a message for the person and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_async(command: Coroutine[Any, Any, None]) -> None:
    """Runs a command; where it fails, prints one clear error and ends the process.

    Exit codes: 1 the services refused or failed, or the output has no room, 2 wrong input, 130 Ctrl-C, 143 SIGTERM.
    """
    try:
        _run(command)
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except (StudyError, EmbeddedError) as error:
        _fail(str(error), EXIT_USAGE)
    except LlmlabError as error:
        _fail(_explain(error), EXIT_FAILED)
    except Interrupted as interrupted:
        notes.print("Interrupted.")
        raise typer.Exit(interrupted.exit_code) from None


def _run(command: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ModuleNotFoundError:  # the client installs without the services, and so without uvloop
        asyncio.run(interruptible(command))
    else:
        uvloop.run(interruptible(command))


def hint(text: str) -> None:
    """Tells what happened beside the result, or what to do next; `llmlab ...` in it can be copied."""
    notes.print(escape(spelled(text)), highlight=False, soft_wrap=True)


def _fail(message: str, exit_code: int) -> None:
    notes.print(f"[bold red]error:[/bold red] {escape(spelled(message))}", highlight=False, soft_wrap=True)
    raise typer.Exit(exit_code)


def _explain(error: LlmlabError) -> str:
    lines = _wrong_fields(error) or [error.message]
    if error.reason in NEXT_STEPS:
        lines.append(f"  {NEXT_STEPS[error.reason]}")
    if error.retry_after_ms:
        lines.append(f"  Try again in {error.retry_after_ms / 1000:.1f} s.")
    lines.append(f"  ({error.reason}{f', request {error.request_id}' if error.request_id else ''})")
    return "\n".join(lines)


def _wrong_fields(error: LlmlabError) -> list[str]:
    """The lines of an error about fields, which are named as the person typed them."""
    if any(error.message.startswith(f"{field}: ") for field in error.fields):
        # A rule of the contract: the message only repeats the first field.
        return [f"{option_of(field)}: {description}" for field, description in error.fields.items()]
    lines = [error.message] if error.fields else []
    for field, description in error.fields.items():
        # Where one field is all that is wrong, its description is the message, perhaps shortened.
        told = error.message.startswith(description.removesuffix("…"))
        lines.append(f"  at {option_of(field)}" if told else f"  {option_of(field)}: {description}")
    return lines
