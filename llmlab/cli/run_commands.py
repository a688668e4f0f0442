"""Commands about runs: run, watch, runs, results, export."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import brand_commands, summary_tables, tables
from llmlab.cli.app import EXIT_FAILED, NEXT_STEPS, AsJson, CommandError, console, hint, notes, run_async
from llmlab.cli.connection import connect
from llmlab.cli.listing import taken
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.plan_command import confirm
from llmlab.cli.progress import follow
from llmlab.cli.run_choice import pick_run
from llmlab.cli.run_watch import watch_runs
from llmlab.cli.saved import find_saved
from llmlab.cli.studies import Study, load_study
from llmlab.client import Client

FAILURES_LOOKED_AT = 50
"""For their kinds, which are few."""
LOST = (run_pb2.CELL_STATUS_FAILED, run_pb2.CELL_STATUS_UNKNOWN)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or `latest`.")]
Shown = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many to show.")]


def run(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    study: Annotated[str, typer.Option(help="Which study of the file, by name or number.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Start it and leave; needs running services.")] = False,
    reuse: Annotated[
        bool,
        typer.Option("--reuse", help="Show a run of the same content that goes on or is completed, if there is one."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, whatever it may cost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a study: check it, follow it, and show what came out.

    A study is a YAML file; `llmlab demo --print` prints one to begin with. A study that may cost more than $1 is asked
    about first; `llmlab plan` says what it would come to.
    """

    async def command() -> None:
        # Read first: a broken file ends the command before anything is started.
        chosen = load_study(study_file, study)
        work = asyncio.Event()
        async with connect(work=work) as client:
            await find_saved(client, chosen.spec)
            started = await _start(client, chosen, reuse=reuse, yes=yes)
            work.set()
            if not detach:
                await follow_and_conclude(client, started.run_id, chosen.name, as_json=as_json)
            elif as_json:
                print_json(to_plain(started))

    run_async(command())


async def _start(client: Client, study: Study, *, reuse: bool, yes: bool) -> run_pb2.Run:
    """Starts a run of a study once its cost is accepted; one that is reused costs nothing, so nothing is asked."""
    if reuse and (found := (await client.plan_experiment(spec=study.spec)).identical_run_id):
        earlier = await client.get_run(found)
        hint(f"Run {found}: {earlier.statistics.cells_total:,} cells (of an earlier start)")
        return earlier
    experiment = await client.create_experiment(study.name, study.spec, description=study.description)
    await confirm(client, experiment.experiment_id, yes=yes)
    started = await client.start_run(experiment.experiment_id, reuse_identical=reuse)
    hint(f"Run {started.run_id}: {experiment.cells:,} cells")
    return started


async def follow_and_conclude(client: Client, run_id: str, label: str, *, as_json: bool) -> None:
    """Shows a run until its end, then its closing table; a run without any answer is a failed command."""
    try:
        ended = await follow(client, run_id, notes, label)
    except asyncio.CancelledError:
        hint(f"What has finished is kept. `llmlab watch {run_id}` goes on with it, `llmlab cancel {run_id}` ends it.")
        raise
    summary = await client.summarize_run(run_id)
    if as_json:
        print_json(to_plain(summary))
    else:
        console.print(summary_tables.summary_table(summary))
        for explanation in summary_tables.explanations(summary):
            hint(explanation)
        if summary.has_brands:
            await brand_commands.conclude(client, run_id)
        await _tell_losses(client, ended)
    if ended.status != run_pb2.RUN_STATUS_COMPLETED:
        state = tables.run_state(ended.status).plain
        raise CommandError(f"Run {run_id} ended {state}. {ended.failure}".rstrip(), EXIT_FAILED)


async def _tell_losses(client: Client, ended: run_pb2.Run) -> None:
    """Says what failed and why, in full: a refusal names its budget, what is left of it and what to do."""
    statistics = ended.statistics
    if statistics.attempts_failed:
        hint(f"{statistics.attempts_failed:,} calls failed and were tried again; the spend counts them as calls.")
    if statistics.cells_failed:
        hint(f"{_cells(statistics.cells_failed)} failed; see `llmlab results {ended.run_id} --state failed`.")
    if statistics.cells_unknown:
        cells = _cells(statistics.cells_unknown)
        outcome = "an unknown outcome" if statistics.cells_unknown == 1 else "unknown outcomes"
        verb = "has" if statistics.cells_unknown == 1 else "have"
        hint(f"{cells} {verb} {outcome}; see `llmlab results {ended.run_id} --state unknown`.")
    if statistics.cells_failed or statistics.cells_unknown:
        lost = client.list_results(run_id=ended.run_id, statuses=LOST)
        tell_failures(await taken(lost, FAILURES_LOOKED_AT))


def _cells(count: int) -> str:
    return f"{count:,} cell" if count == 1 else f"{count:,} cells"


def tell_failures(results: Iterable[run_pb2.Result]) -> None:
    """Prints the first message of each kind of failure: tables have no room for it."""
    for reason, message in tables.failures(results).items():
        hint(f"{reason}: {message}")
        if reason in NEXT_STEPS:
            hint(f"  {NEXT_STEPS[reason]}")


def watch(run_id: RunId, as_json: AsJson = False) -> None:
    """Follow a run until it ends, then show what came out.

    With --json, each event is printed as a line.
    """

    async def command() -> None:
        work = asyncio.Event()
        async with connect(work=work) as client:
            chosen = await pick_run(client, run_id)
            work.set()
            if as_json:
                async for event in client.watch_run(chosen.run_id):
                    print_json(to_plain(event))
            else:
                await follow_and_conclude(client, chosen.run_id, chosen.experiment_name, as_json=False)

    run_async(command())


def runs(
    limit: Shown = 20,
    watch_them: Annotated[bool, typer.Option("--watch", help="Go on, and show how they change, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first.

    With --watch and --json, each run is printed as a line whenever it changes.

    The cost is that of the time of the calls; `llmlab spend --by run` follows later repricings.
    """

    async def command() -> None:
        async with connect() as client:
            if watch_them:
                await watch_runs(client, limit, as_json=as_json)
                return
            found = await taken(client.list_runs(), limit)
            if as_json:
                print_json([to_plain(entry) for entry in found])
            elif found:
                console.print(tables.runs_table(found))
                if await taken(client.list_repricings(), 1):
                    hint("Costs are those of the time of the calls; `llmlab spend --by run` has them as priced anew.")
            else:
                hint("No runs yet. `llmlab demo` makes one.")

    run_async(command())
