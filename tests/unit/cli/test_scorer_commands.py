"""How scorers are shown."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from llmlab.api.common.v1.value_pb2 import Value
from llmlab.api.metrics.v1 import metrics_pb2 as pb
from llmlab.cli.scorer_commands import scorer_tables, scorers_table

SCORER = pb.Scorer(
    name="regex",
    version="1",
    description="Whether the answer matches [a-z].",
    citation="RE2",
    needs_reference=True,
    scores=[pb.ScoreDeclaration(name="regex", direction=pb.DIRECTION_HIGHER_IS_BETTER, description="1 where it does.")],
    parameters=[
        pb.ScorerParameter(name="pattern", type="string", description="What to look for."),
        pb.ScorerParameter(name="case", type="bool", description="Case.", default_value=Value(bool_value=False)),
    ],
)


def shown(what: RenderableType) -> list[list[str]]:
    screen = io.StringIO()
    Console(file=screen, width=80).print(what)
    return [line.split() for line in screen.getvalue().splitlines()]


def test_all_scorers() -> None:
    assert shown(scorers_table([SCORER]))[1] == "regex reference Whether the answer matches [a-z].".split()


def test_one_scorer() -> None:
    lines = shown(scorer_tables(SCORER))
    assert "regex higher is better 1 where it does.".split() in lines
    assert "pattern string required What to look for.".split() in lines
    assert "case bool False Case.".split() in lines
