"""Commands about scorers: scorers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.cli.app import AsJson, console, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.studies import from_value

DIRECTIONS = {
    pb.DIRECTION_HIGHER_IS_BETTER: "higher is better",
    pb.DIRECTION_LOWER_IS_BETTER: "lower is better",
    pb.DIRECTION_NEUTRAL: "describes",
}


def scorers(
    name: Annotated[str, typer.Argument(help="One scorer, with its scores and parameters; all without it.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the scorers that a study may name, or tell more about one."""

    async def command() -> None:
        async with connect() as client:
            known = {scorer.name: scorer async for scorer in client.list_scorers()}
        if name and name not in known:
            raise typer.BadParameter(f"no scorer is named {name!r}; there are {', '.join(known)}", param_hint="NAME")
        if as_json:
            print_json([to_plain(scorer) for scorer in ([known[name]] if name else known.values())])
        else:
            console.print(scorer_tables(known[name]) if name else scorers_table(list(known.values())))

    run_async(command())


def scorers_table(known: list[pb.Scorer]) -> Table:
    """All scorers: what each measures and what it needs."""
    table = Table("scorer", "needs", "default", "what it measures", box=None, pad_edge=False)
    for scorer in known:
        needs = [
            word
            for word, needed in (
                ("prompt", scorer.needs_prompt),
                ("reference", scorer.needs_reference),
                ("model", scorer.needs_model),
            )
            if needed
        ]
        default = "yes" if scorer.in_default_set else ""
        table.add_row(scorer.name, ", ".join(needs), default, escape(scorer.description))
    return table


def scorer_tables(scorer: pb.Scorer) -> Group:
    """One scorer: its definition, its scores, and its parameters where it has some."""
    scores = Table("score", "direction", "meaning", box=None, pad_edge=False)
    for score in scorer.scores:
        scores.add_row(score.name, DIRECTIONS[score.direction], escape(score.description))
    parts: list[str | Table] = [
        f"{scorer.name}, version {scorer.version}: {escape(scorer.description)}",
        f"Source: {escape(scorer.citation)}",
        "",
        scores,
    ]
    if scorer.parameters:
        parameters = Table("parameter", "type", "default", "meaning", box=None, pad_edge=False)
        for parameter in scorer.parameters:
            given = parameter.HasField("default_value")
            default = escape(str(from_value(parameter.default_value))) if given else "required"
            parameters.add_row(parameter.name, parameter.type, default, escape(meaning(parameter)))
        parts += ["", parameters]
    return Group(*parts)


def meaning(parameter: pb.ScorerParameter) -> str:
    """What a parameter does, with the values that it takes where they are few."""
    choices = f" One of: {', '.join(parameter.choices)}." if parameter.choices else ""
    return f"{parameter.description}{choices}"
