"""Commands about the results of a run: results, conversations, export."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from llmlab.api.common.v1 import error_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import tables
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.downloads import FORMATS, download
from llmlab.cli.files import STANDARD_OUTPUT
from llmlab.cli.listing import taken
from llmlab.cli.options import Scores
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.run_choice import pick_run
from llmlab.cli.run_commands import RunId, Shown, tell_failures

LIST_SHOWN_MAX = 50
ORDERS = {
    "cell": run_pb2.RESULT_ORDER_CELL,
    "oldest": run_pb2.RESULT_ORDER_OLDEST_FIRST,
    "newest": run_pb2.RESULT_ORDER_NEWEST_FIRST,
    "fastest": run_pb2.RESULT_ORDER_FASTEST_FIRST,
    "slowest": run_pb2.RESULT_ORDER_SLOWEST_FIRST,
    "cheapest": run_pb2.RESULT_ORDER_CHEAPEST_FIRST,
    "dearest": run_pb2.RESULT_ORDER_DEAREST_FIRST,
    "best": run_pb2.RESULT_ORDER_BEST_FIRST,
    "worst": run_pb2.RESULT_ORDER_WORST_FIRST,
}


def results(
    run_id: RunId,
    state: Annotated[str, typer.Option(help="Only done, failed, unknown or cancelled cells.")] = "",
    model: Annotated[str, typer.Option(help="Only this model.")] = "",
    prompt: Annotated[str, typer.Option(help="Only answers to the prompt of this name.")] = "",
    reason: Annotated[str, typer.Option(help="Only cells that failed for this reason, such as RATE_LIMITED.")] = "",
    first: Annotated[str, typer.Option(help=f"What comes first: {', '.join(ORDERS)}.")] = "cell",
    scores: Scores = "",
    limit: Shown = LIST_SHOWN_MAX,
    as_json: AsJson = False,
) -> None:
    """List the answers of a run, with their scores, times and costs.

    The best come first by their quality, or else by the first score of the study's scorers that has a better side; by
    another one after `llmlab rescore RUN SET --scorer NAME`, with --scores SET.

    With --json, one complete result a line.
    """

    async def command() -> None:
        statuses = [_cell_status(state)] if state else []
        if first not in ORDERS:
            raise CommandError(f"--first is one of {', '.join(ORDERS)}, not {first!r}.", EXIT_USAGE)
        reasons = [_error_reason(reason)] if reason else []
        async with connect() as client:
            chosen = await pick_run(client, run_id)
            found = client.list_results(
                run_id=chosen.run_id,
                statuses=statuses,
                models=[model] if model else [],
                prompts=[prompt] if prompt else [],
                error_reasons=reasons,
                score_set=scores,
                full=True,
                order=ORDERS[first],
            )
            if as_json:
                await _print_results(found, limit)
                return
            shown = await taken(found, limit)
            if not shown:
                hint(f"No result of run {chosen.run_id} matches. `llmlab watch {chosen.run_id}` follows the run.")
                return
            console.print(tables.results_table(shown))
            tell_failures(shown)
            if len(shown) == limit:
                hint(f"The first {limit}; --limit shows more, `llmlab export {chosen.run_id}` writes all.")

    run_async(command())


async def _print_results(found: AsyncIterator[run_pb2.Result], limit: int) -> None:
    printed = 0
    async for result in found:
        print_json(to_plain(result))
        printed += 1
        if printed == limit:
            break


def conversations(
    run_id: RunId,
    prompt: Annotated[str, typer.Option(help="Only the prompt of this name.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many prompts to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show what was asked and everything that was answered, prompt by prompt.

    With --json, one conversation a line; a long one comes in parts.
    """

    async def command() -> None:
        async with connect() as client:
            chosen = await pick_run(client, run_id)
            found = client.list_conversations(run_id=chosen.run_id, prompts=[prompt] if prompt else [])
            shown = 0
            async for conversation in found:
                shown += not conversation.continued
                if shown > limit:
                    hint(f"The first {limit}; --limit shows more, `llmlab report {chosen.run_id}` has all.")
                    break
                if as_json:
                    print_json(to_plain(conversation))
                else:
                    console.print(tables.conversation_table(conversation))
            if not shown:
                hint(f"Run {chosen.run_id} has no answers to such a prompt.")

    run_async(command())


def _error_reason(name: str) -> error_pb2.ErrorReason.ValueType:
    number = error_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(f"ERROR_REASON_{name.upper()}")
    if number is None or not number.number:
        raise CommandError(
            f"--reason is one that `llmlab results` tells, such as RATE_LIMITED; {name!r} is none.", EXIT_USAGE
        )
    return error_pb2.ErrorReason.ValueType(number.number)


def _cell_status(state: str) -> run_pb2.CellStatus.ValueType:
    names = [name.removeprefix("CELL_STATUS_").lower() for name in run_pb2.CellStatus.keys()[1:]]
    if state.lower() not in names:
        raise CommandError(f"--state is one of {', '.join(names)}, not {state!r}.", EXIT_USAGE)
    return run_pb2.CellStatus.Value(f"CELL_STATUS_{state.upper()}")


def export(
    run_id: RunId,
    file_format: Annotated[str, typer.Option("--format", help="csv, json, jsonl or parquet.")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; standard output if absent, or -.")
    ] = None,
    scores: Scores = "",
    as_json: AsJson = False,
) -> None:
    """Export all results of a run as CSV, JSON, JSON Lines or Parquet.

    A broken export into a file goes on where it broke when the same command is given again.
    """

    async def command() -> None:
        if file_format not in FORMATS:
            raise CommandError(f"--format is one of {', '.join(FORMATS)}, not {file_format!r}.", EXIT_USAGE)
        async with connect() as client:
            chosen = await pick_run(client, run_id)
            if output is None or str(output) == STANDARD_OUTPUT:
                pieces = client.export_results(run_id=chosen.run_id, file_format=FORMATS[file_format], score_set=scores)
                async for piece in pieces:
                    sys.stdout.buffer.write(piece.data)
                sys.stdout.buffer.flush()
                return
            written = await download(client, chosen, file_format, output, scores)
            if as_json:
                print_json({"run_id": chosen.run_id, "file": str(output), "results": written})
            else:
                hint(f"{written:,} results written to {output}")

    run_async(command())
