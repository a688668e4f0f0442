"""Commands that tell a run what to do: cancel, pause, resume, retry, delete."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated

import typer

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import interrupts, tables
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.listing import taken
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.run_choice import pick_run
from llmlab.cli.run_commands import RunId, follow_and_conclude
from llmlab.client import Client

CANCEL_WAIT_S = 10.0
GOING_ON = (run_pb2.RUN_STATUS_PENDING, run_pb2.RUN_STATUS_RUNNING)
Detach = Annotated[bool, typer.Option("--detach", help="Leave at once; needs running services.")]


def cancel(run_id: RunId, as_json: AsJson = False) -> None:
    """Cancel a run: its calls under way are stopped, the results that it has are kept."""

    async def command() -> None:
        work = asyncio.Event()
        async with connect(work=work) as client:
            run = await client.cancel_run((await pick_run(client, run_id)).run_id)
            # A worker that is started for this would call models for the other runs too.
            if not await taken(client.list_runs(statuses=GOING_ON), 1):
                work.set()
                run = await _cancelled(client, run)
        _tell(run, as_json=as_json)
        if run.status == run_pb2.RUN_STATUS_CANCELLING and not as_json:
            hint(f"`llmlab watch {run.run_id}` waits for its end.")

    run_async(command())


async def _cancelled(client: Client, run: run_pb2.Run) -> run_pb2.Run:
    """The run once its calls under way are stopped, or as it is after some time."""
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(CANCEL_WAIT_S),
            aclosing(client.watch_run(run.run_id, after_sequence=run.last_sequence)) as events,
        ):
            async for _ in events:
                pass
    return await client.get_run(run.run_id)


def pause(run_id: RunId, as_json: AsJson = False) -> None:
    """Let a run make no further calls for now; those under way end as they do."""

    async def command() -> None:
        async with connect() as client:
            chosen = await pick_run(client, run_id)
            paused = await client.pause_run(chosen.run_id)
            _tell(paused, as_json=as_json)
            if not as_json:
                hint(f"`llmlab resume {paused.run_id}` lets it go on.")

    run_async(command())


def resume(run_id: RunId, detach: Detach = False, as_json: AsJson = False) -> None:
    """Let a paused run go on, and follow it."""

    async def command() -> None:
        work = asyncio.Event()
        async with connect(work=work) as client:
            chosen = await pick_run(client, run_id)
            resumed = await client.resume_run(chosen.run_id)
            work.set()
            await _go_on(client, resumed, detach=detach, as_json=as_json)

    run_async(command())


def retry(
    run_id: RunId,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Also cells with an unknown outcome; they can be paid for twice.")
    ] = False,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Call models again for the cells of an ended run that have no answer: failed, cancelled or never called."""

    async def command() -> None:
        work = asyncio.Event()
        async with connect(work=work) as client:
            chosen = await pick_run(client, run_id)
            retried = await client.retry_run(chosen.run_id, include_unknown=unknown)
            if retried.cells:
                work.set()
                hint(f"Run {chosen.run_id}: {retried.cells:,} cells are tried again")
                await _go_on(client, retried.run, detach=detach, as_json=as_json)
            elif as_json:
                print_json(to_plain(retried.run))
            else:
                lost = chosen.statistics.cells_unknown
                more = f" {lost:,} have an unknown outcome; --unknown tries them again too." if lost else ""
                hint(f"No cell of run {chosen.run_id} has to be tried again.{more}")

    run_async(command())


def delete(
    run_id: RunId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an ended run with its results; what it cost stays in the spend."""

    async def command() -> None:
        async with connect() as client:
            chosen = await pick_run(client, run_id)
            question = f"Delete run {chosen.run_id} ({chosen.experiment_name}) with its results?"
            if not yes and not interrupts.confirm(question):
                raise CommandError("Nothing was deleted.", EXIT_USAGE)
            await client.delete_run(chosen.run_id)
            if as_json:
                print_json({"run_id": chosen.run_id})
            else:
                hint(f"Run {chosen.run_id} is deleted.")

    run_async(command())


async def _go_on(client: Client, run: run_pb2.Run, *, detach: bool, as_json: bool) -> None:
    """Follow a run that goes on; say where it stands if nobody wants to."""
    if detach:
        _tell(run, as_json=as_json)
    else:
        await follow_and_conclude(client, run.run_id, run.experiment_name, as_json=as_json)


def _tell(run: run_pb2.Run, *, as_json: bool) -> None:
    if as_json:
        print_json(to_plain(run))
    else:
        hint(f"Run {run.run_id} is {tables.run_state(run.status).plain}.")
