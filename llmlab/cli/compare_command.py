"""The command that puts two runs, or two models, side by side."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from llmlab.api.metrics.v1 import metrics_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import comparison_pb2
from llmlab.cli import figures, money
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, run_async
from llmlab.cli.connection import connect
from llmlab.cli.listing import taken
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.report.responses import parts_text
from llmlab.cli.run_choice import LATEST, pick_run
from llmlab.cli.tables import empty_table
from llmlab.client import Client

Side = Annotated[str, typer.Argument(help="A run's id, `latest`, RUN:MODEL, or a model of --run, provider/model.")]
_PREVIEW_CHARACTERS = 400
_TITLES = {"latency_us": "latency", "cost_nano_usd": "cost"}


def compare(
    first: Side,
    second: Side,
    run: Annotated[str, typer.Option(metavar="RUN", help="The run of models that are named without one.")] = LATEST,
    differing: Annotated[int, typer.Option(min=0, max=20, help="How many differing answers to show in full.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two runs, or two models, prompt by prompt: what differs, and what is within noise."""

    async def command() -> None:
        async with connect() as client:
            sides = await two_sides(client, first, second, run)
            compared = await client.compare_results(*sides)
            if as_json:
                print_json(to_plain(compared))
                return
            console.print(comparison_table(compared))
            for explanation in explanations(compared):
                hint(explanation)
            for unit in compared.differing[:differing]:
                await _show_answers(client, compared, unit)
            if compared.differing and not differing:
                hint("--differing 3 shows the answers that differ most.")

    run_async(command())


async def two_sides(client: Client, first: str, second: str, run: str) -> list[comparison_pb2.ComparedSide]:
    """The sides that two arguments name; `run` is the run of a model that is named without one.

    Raises:
        CommandError: Both name the same, or a run or a model that does not exist.
    """
    sides = [await _side(client, text, run) for text in (first, second)]
    if sides[0] == sides[1]:
        raise CommandError(f"{first} and {second} are the same; name another run or model.", EXIT_USAGE)
    return sides


async def _side(client: Client, text: str, run: str) -> comparison_pb2.ComparedSide:
    """Reads RUN, RUN:MODEL or MODEL; a model has a slash, a run has none."""
    before, colon, after = text.partition(":")
    named, model = (before, after) if colon and "/" not in before else (run, text) if "/" in text else (text, "")
    run_id = (await pick_run(client, named)).run_id
    if model and not await taken(client.list_results(run_id=run_id, models=[model]), 1):
        models = {point.model for point in (await client.summarize_run(run_id)).points}
        if model not in models:
            raise CommandError(f"Run {run_id} has no model {model}; it has {', '.join(sorted(models))}.", EXIT_USAGE)
    return comparison_pb2.ComparedSide(run_id=run_id, model=model)


def comparison_table(compared: comparison_pb2.CompareResultsResponse) -> Table:
    """Builds the table: one figure a line, with the difference, its interval, and who is better."""
    sides = compared.first.side, compared.second.side
    titles = [side_title(each, other) for each, other in (sides, sides[::-1])]
    table = empty_table("Comparison", [("figure", False)])
    for letter, title in zip("AB", titles, strict=True):
        table.add_column(escape(f"{letter}\n{title}"), justify="right", overflow="fold")
    table.add_column("A - B\n95 %", justify="right", no_wrap=True)
    table.add_column("better", overflow="fold")
    for figure in compared.figures:
        table.add_row(
            escape(_TITLES.get(figure.name, figure.name)),
            _value(figure.name, figure.first),
            _value(figure.name, figure.second),
            f"{_value(figure.name, figure.comparison.difference)}\n{_interval(figure)}",
            better(figure),
        )
    return table


def side_title(side: comparison_pb2.ComparedSide, other: comparison_pb2.ComparedSide) -> str:
    """Names a side by what tells it from the other: its model, or its run and model."""
    if side.run_id == other.run_id:
        return side.model or "all models"
    return f"{side.run_id}\n{side.model}".rstrip()


def better(figure: comparison_pb2.ComparedFigure) -> str:
    """Says which side is better, or why nobody can say so."""
    verdict = figure.comparison.verdict
    if verdict == statistics_pb2.VERDICT_WITHIN_NOISE:
        return "within noise"
    if verdict not in (statistics_pb2.VERDICT_FIRST_HIGHER, statistics_pb2.VERDICT_SECOND_HIGHER):
        return "too few prompts"
    first_higher = verdict == statistics_pb2.VERDICT_FIRST_HIGHER
    if figure.direction not in (metrics_pb2.DIRECTION_HIGHER_IS_BETTER, metrics_pb2.DIRECTION_LOWER_IS_BETTER):
        return f"{'A' if first_higher else 'B'} is higher"
    return "A" if first_higher == (figure.direction == metrics_pb2.DIRECTION_HIGHER_IS_BETTER) else "B"


def explanations(compared: comparison_pb2.CompareResultsResponse) -> list[str]:
    """Says what was compared, and what was left out of it."""
    told = [
        f"Compared at {compared.units_shared:,} prompts and rows that both have; several answers count by their mean."
    ]
    told += [
        f"{letter} has {side.units_alone:,} more that the other does not have."
        for letter, side in (("A", compared.first), ("B", compared.second))
        if side.units_alone
    ]
    if not compared.units_shared:
        told.append("They have no prompt in common: a prompt is the same where its name and its row's columns are.")
    return told


def _value(name: str, figure: statistics_pb2.Estimate) -> str:
    if not figure.HasField("value"):
        return "-"
    return _formatted(name, figure.value)


def _formatted(name: str, value: float) -> str:
    sign = "-" if value < 0 else ""
    if name == "latency_us":
        return f"{sign}{figures.milliseconds(abs(value))}"
    if name == "cost_nano_usd":
        return money.dollars(round(value))
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


def _interval(figure: comparison_pb2.ComparedFigure) -> str:
    difference = figure.comparison.difference
    if not (difference.HasField("low") and difference.HasField("high")):
        return ""
    return f"{_formatted(figure.name, difference.low)} to {_formatted(figure.name, difference.high)}"


async def _show_answers(
    client: Client, compared: comparison_pb2.CompareResultsResponse, unit: comparison_pb2.DifferingUnit
) -> None:
    title = (
        f"{unit.prompt_name}, row {unit.row_index + 1}: {compared.differing_by} {unit.first:.2f} and {unit.second:.2f}"
    )
    table = Table(title=escape(title), title_justify="left", show_lines=True, expand=True)
    answers = []
    for side, cell in ((compared.first, unit.first_cell_index), (compared.second, unit.second_cell_index)):
        result = await client.get_result(side.side.run_id, cell)
        table.add_column(escape(f"{result.model}, cell {cell}"), ratio=1, overflow="fold")
        text = parts_text(result.response)
        answers.append(escape(text if len(text) <= _PREVIEW_CHARACTERS else f"{text[:_PREVIEW_CHARACTERS]}…"))
    table.add_row(*answers)
    console.print(table)
