"""The command that has a model judge the answers of two runs, or two models, in pairs and in both orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from llmlab.api.metrics.v1 import judge_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import comparison_pb2, run_pb2
from llmlab.cli import figures, money
from llmlab.cli.app import EXIT_FAILED, AsJson, CommandError, console, hint, run_async
from llmlab.cli.compare_command import Side, side_title, two_sides
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.cli.report.responses import parts_text
from llmlab.cli.run_choice import LATEST
from llmlab.cli.tables import empty_table
from llmlab.client import Client

PAIRS_MAX = 256
"""Pairs that one request takes."""
_REASONS_SHOWN = 3
_CRITERIA = "The better answer is correct, does what the prompt asks, and is clear."
_BIAS = {
    judge_pb2.JUDGE_BIAS_FIRST: "The judge prefers the answer that it reads first: do not trust it with these answers.",
    judge_pb2.JUDGE_BIAS_SECOND: "The judge prefers the answer that it reads last: do not trust it with these answers.",
}

_Unit = tuple[str, int]


def judge(
    first: Side,
    second: Side,
    by: Annotated[str, typer.Option(metavar="MODEL", help="The model that judges; it has to follow JSON schemas.")],
    run: Annotated[str, typer.Option(metavar="RUN", help="The run of models that are named without one.")] = LATEST,
    criteria: Annotated[str, typer.Option(help="What makes an answer better.")] = _CRITERIA,
    pairs: Annotated[int, typer.Option(min=1, max=PAIRS_MAX, help="Pairs at most; each is two paid calls.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Have a model judge two runs, or two models, answer against answer, and tell who wins beyond noise."""

    async def command() -> None:
        async with connect() as client:
            sides = await two_sides(client, first, second, run)
            judged = await _judged(client, sides, by, criteria, pairs)
            if as_json:
                print_json(to_plain(judged))
                return
            console.print(verdict_table(judged, *(side_title(each, other) for each, other in (sides, sides[::-1]))))
            for explanation in explanations(judged):
                hint(explanation)
            if not judged.a_score.HasField("value"):
                raise CommandError(f"{by} gave no verdict.", EXIT_FAILED)

    run_async(command())


async def _judged(
    client: Client, sides: list[comparison_pb2.ComparedSide], model: str, criteria: str, pairs_max: int
) -> judge_pb2.JudgePairsResponse:
    chosen = await _shared(client, sides[0], sides[1], pairs_max)
    if not chosen:
        raise CommandError(
            "They have no answered prompt in common; `llmlab results RUN` shows the models.", EXIT_FAILED
        )
    pairs = []
    for name, row in chosen:
        a, b = [await client.get_result(side.run_id, cell) for side, cell in zip(sides, chosen[name, row], strict=True)]
        prompt = "\n\n".join(parts_text(message.parts) for message in a.request)
        pairs.append(
            judge_pb2.JudgedPair(
                pair_id=f"{name}/{row}", prompt=prompt, a=parts_text(a.response), b=parts_text(b.response)
            )
        )
    tags = {"run": sides[0].run_id, "purpose": "judge"}
    question = judge_pb2.JudgePairsRequest(
        judge=judge_pb2.JudgeModel(model=model, tags=tags), criteria=criteria, pairs=pairs
    )
    return await client.judge_pairs(question)


async def _shared(
    client: Client, first: comparison_pb2.ComparedSide, second: comparison_pb2.ComparedSide, count: int
) -> dict[_Unit, tuple[int, int]]:
    """Finds the first prompts and rows that both sides have answered, each with the cell of its first answer.

    Both are read by turns and only as far as needed: runs of one study have their prompts in the same order.
    """
    found: dict[_Unit, tuple[int, int]] = {}
    seen: tuple[dict[_Unit, int], dict[_Unit, int]] = ({}, {})
    readers = [_answered(client, side) for side in (first, second)]
    under_way = {0, 1}
    while under_way and len(found) < count:
        for place in sorted(under_way):
            result = await anext(readers[place], None)
            if result is None:
                under_way.discard(place)
                continue
            unit = (result.prompt_name, result.row_index)
            seen[place].setdefault(unit, result.cell_index)
            if unit in seen[1 - place] and len(found) < count:
                found.setdefault(unit, (seen[0][unit], seen[1][unit]))
    return found


def _answered(client: Client, side: comparison_pb2.ComparedSide) -> AsyncIterator[run_pb2.Result]:
    models = [side.model] if side.model else []
    return client.list_results(run_id=side.run_id, statuses=[run_pb2.CELL_STATUS_DONE], models=models)


def verdict_table(judged: judge_pb2.JudgePairsResponse, first: str, second: str) -> Table:
    """Builds the table: who won how often, and the score of A with its interval."""
    winners = [judgement.winner for judgement in judged.judgements]
    table = empty_table("Judged in pairs", [("outcome", False), ("pairs", True)])
    for words, winner in (
        (f"A wins: {first}", judge_pb2.PAIR_WINNER_A),
        (f"B wins: {second}", judge_pb2.PAIR_WINNER_B),
        ("tie, or the order decides", judge_pb2.PAIR_WINNER_TIE),
        ("no verdict", judge_pb2.PAIR_WINNER_MISSING),
    ):
        table.add_row(escape(words.replace("\n", " ")), f"{winners.count(winner):,}")
    return table


def explanations(judged: judge_pb2.JudgePairsResponse) -> list[str]:
    """Says who is better, how far the judge can be trusted, and what it cost."""
    score = judged.a_score
    told = [f"Score of A, a tie counting half: {_score(score)}{leader(judged)}."]
    if bounds := figures.if_missing(score):
        told.append(f"With the missing verdicts at their worst and best: {bounds}.")
    if missing := missing_reasons(judged):
        told.append(f"Without a verdict: {missing}.")
    told.append(f"Same outcome in both orders: {figures.percent(judged.consistency_rate)} of the pairs.")
    if judged.bias in _BIAS:
        told.append(_BIAS[judged.bias])
    told.append(f"The judge's calls cost {money.cost(judged.cost)}.")
    return told


def _score(score: statistics_pb2.Estimate) -> str:
    if not score.HasField("value"):
        return ""
    interval = f" ({figures.interval(score)})" if score.HasField("low") and score.HasField("high") else ""
    return f"{figures.value(score)}{interval}; "


def missing_reasons(judged: judge_pb2.JudgePairsResponse) -> str:
    """Says why verdicts are missing, the most frequent reasons first; "" where none is."""
    replies = [reply for judgement in judged.judgements for reply in (judgement.a_first, judgement.b_first)]
    reasons = Counter(reply.evidence.missing_reason for reply in replies if reply.evidence.missing_reason)
    return "; ".join(f"{count:,} calls: {reason}" for reason, count in reasons.most_common(_REASONS_SHOWN))


def leader(judged: judge_pb2.JudgePairsResponse) -> str:
    """Says who is better where the interval says so."""
    score = judged.a_score
    if not (score.HasField("low") and score.HasField("high")):
        return "too few pairs to tell"
    if score.low > 0.5:
        return "A is better"
    return "B is better" if score.high < 0.5 else "within noise"
