"""The command that scores the answers of a run anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from llmlab.api.metrics.v1 import metrics_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2
from llmlab.cli import summary_tables
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, notes, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.run_choice import pick_run
from llmlab.cli.studies import load_study
from llmlab.client import Client


def rescore(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or `latest`.")],
    score_set: Annotated[str, typer.Argument(metavar="SET", help="A name for the new scores, such as strict.")],
    study_file: Annotated[
        Path | None, typer.Argument(metavar="STUDY.yaml", help="A study file whose scorers are taken.")
    ] = None,
    study: Annotated[str, typer.Option(help="Which study of the file, by name or number.")] = "",
    scorer: Annotated[
        list[str] | None, typer.Option(help="A scorer that needs no parameters; repeat it for more.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score the answers of a run by other scorers, without calling a model; the scores that it has stay.

    Given again, it goes on where it stopped. `llmlab scorers` lists what there is.
    """

    async def command() -> None:
        targets = _targets(study_file, study, scorer or [])
        async with connect() as client:
            run = await pick_run(client, run_id)
            await _follow(client, run.run_id, score_set, targets)
            summary = await client.summarize_run(run.run_id, score_set=score_set)
        if as_json:
            print_json(to_plain(summary))
            return
        console.print(summary_tables.summary_table(summary))
        for explanation in summary_tables.explanations(summary):
            hint(explanation)
        hint(f"`llmlab export {run.run_id} --scores {score_set}` writes each answer with these scores.")

    run_async(command())


def _targets(study_file: Path | None, study: str, names: list[str]) -> list[experiment_pb2.ScorerTarget]:
    targets = list(load_study(study_file, study).spec.scorers) if study_file else []
    targets += [experiment_pb2.ScorerTarget(scorer=metrics_pb2.ScorerSpec(name=name)) for name in names]
    if not targets:
        raise CommandError("Name scorers: those of a STUDY.yaml, or --scorer NAME.", EXIT_USAGE)
    return targets


async def _follow(client: Client, run_id: str, score_set: str, targets: list[experiment_pb2.ScorerTarget]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
    with Progress(*columns, console=notes, disable=not notes.is_terminal) as progress:
        task = progress.add_task(score_set, total=None)
        async for message in client.rescore_run(run_id, score_set, targets):
            progress.update(task, total=message.answers, completed=message.answers_scored)
