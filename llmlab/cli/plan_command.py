"""What a study would come to: the command plan, and the question that run asks first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from llmlab.api.orchestrator.v1 import experiment_pb2
from llmlab.cli import figures, interrupts, money, tables
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, notes, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.saved import find_saved
from llmlab.cli.studies import load_study
from llmlab.client import Client

ASK_ABOVE_NANO_USD = money.NANO_PER_USD
"""Runs that may cost more are asked about."""

_BASES = {
    experiment_pb2.FORECAST_BASIS_SAME_STUDY: "this study",
    experiment_pb2.FORECAST_BASIS_SAME_MODEL: "other studies",
    experiment_pb2.FORECAST_BASIS_ASSUMED: "nothing measured",
}


def plan(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    study: Annotated[str, typer.Option(help="Which study of the file, by name or number.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what a study would come to: calls, tokens, cost with an interval, and time. Nothing is spent."""

    async def command() -> None:
        chosen = load_study(study_file, study)
        async with connect() as client:
            await find_saved(client, chosen.spec)
            forecast = await client.plan_experiment(spec=chosen.spec)
        if as_json:
            print_json(to_plain(forecast))
            return
        console.print(forecast_table(forecast))
        console.print(_sum(forecast), highlight=False)
        for warning in forecast.warnings:
            hint(warning)

    run_async(command())


async def confirm(client: Client, experiment_id: str, *, yes: bool) -> None:
    """Ask before a run that may cost more than a dollar, or whose cost is unknown.

    Raises:
        CommandError: The answer is no.
    """
    if yes:
        return
    forecast = await client.plan_experiment(experiment_id=experiment_id)
    unpriced = [model.model for model in forecast.models if not model.HasField("cost_nano_usd")]
    if forecast.cost_nano_usd.high <= ASK_ABOVE_NANO_USD and not unpriced:
        return
    notes.print(forecast_table(forecast))
    for warning in forecast.warnings:
        hint(warning)
    if not interrupts.confirm(f"{_sum(forecast)}. Run it?"):
        raise CommandError("Nothing was called. --yes runs it without a question.", EXIT_USAGE)


def forecast_table(forecast: experiment_pb2.PlanExperimentResponse) -> Table:
    """Builds the table of models."""
    table = tables.empty_table(
        "Plan", [("model\nmeasured", False), ("calls", True), ("tokens in\nout", True), ("cost\n90 % interval", True)]
    )
    for model in forecast.models:
        basis = _BASES[model.basis]
        measured = f"{model.measured_answers:,} answers, {basis}" if model.measured_answers else basis
        cost = model.cost_nano_usd
        table.add_row(
            f"{escape(model.model)}\n{measured}",
            f"{model.cells:,}",
            f"{model.input_tokens.expected:,}\n{model.output_tokens.expected:,}",
            f"{money.dollars(cost.expected)}\n{_interval(cost)}" if model.HasField("cost_nano_usd") else "unpriced",
        )
    return table


def _interval(amount: experiment_pb2.ForecastAmount) -> str:
    return f"{money.dollars(amount.low)} - {money.dollars(amount.high)}"


def _sum(forecast: experiment_pb2.PlanExperimentResponse) -> str:
    cost = forecast.cost_nano_usd
    parts = [f"{forecast.cells:,} calls", f"{money.dollars(cost.expected)} expected ({_interval(cost)})"]
    parts.append(f"at most {money.dollars(forecast.worst_case_nano_usd)}")
    if forecast.HasField("duration_s"):
        parts.append(f"about {figures.duration(forecast.duration_s)}")
    return ", ".join(parts)
