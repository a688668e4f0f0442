"""What `make chaos` is made of: its plan of faults, and checks that see what is wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.chaos_checks import Story, violations
from bench.chaos_faults import FAILPOINTS, KILLS_OF_A_FAILPOINT, VICTIMS, Kind, plan
from llmlab.api.orchestrator.v1 import run_pb2
from tests.support.witness import Books, Call, Record

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"cost.webhook_posted"}
"""Failpoints that no call passes."""


def test_a_seed_has_its_faults() -> None:
    assert plan(7, 50) == plan(7, 50)
    assert plan(7, 50) != plan(8, 50)


@pytest.mark.parametrize("seed", range(20))
def test_fifty_kills_reach_every_failpoint_and_every_victim(seed: int) -> None:
    faults = plan(seed, 50)
    points = [fault.failpoint for fault in faults if fault.kind is Kind.FAILPOINT]
    assert sorted(points) == sorted(FAILPOINTS)
    plain = Counter(victim for fault in faults if fault.kind is Kind.KILL for victim in fault.victims)
    assert set(plain) == set(VICTIMS)
    assert plain.total() + len(points) * KILLS_OF_A_FAILPOINT == 50
    kinds = Counter(fault.kind for fault in faults)
    assert (kinds[Kind.DATABASE], kinds[Kind.FREEZE]) == (6, 3)
    assert {fault.crash for fault in faults if fault.kind is Kind.DATABASE} == {True, False}


def test_every_failpoint_of_the_code_is_one_of_chaos() -> None:
    found = {
        name
        for path in (ROOT / "services").rglob("*.py")
        for name in re.findall(r'\bfailpoint\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert found == set(FAILPOINTS) | ELSEWHERE


def told() -> Story:
    """Three cells: one done at once, one done at its second attempt, one unknown at a kill."""
    run = run_pb2.Run(run_id="run_1", status=run_pb2.RUN_STATUS_COMPLETED, last_sequence=3)
    run.statistics.cells_total, run.statistics.cells_done, run.statistics.cells_scored = 3, 2, 2
    run.statistics.cells_unknown = 1
    run.statistics.cost.cost_nano_usd = 30
    results = [Record(Call(0, 1), "done"), Record(Call(1, 2), "done"), Record(Call(2, 1), "unknown")]
    attempts = [Record(Call(1, 1), "unsent")]
    books = Books(run, results, attempts, [], ["run_1/0/1/1", "run_1/1/2/1"])
    return Story(books, [1, 2, 3], 30, frozenset({Call(2, 1)}))


def with_books(**changes: object) -> Callable[[Story], Story]:
    """The story with other books."""
    return lambda story: replace(story, books=replace(story.books, **changes))  # type: ignore[arg-type]


def with_status(status: run_pb2.RunStatus.ValueType) -> Callable[[Story], Story]:
    """The story of a run that ended otherwise."""

    def change(story: Story) -> Story:
        story.books.run.status = status
        return story

    return change


def test_a_story_that_kept_every_promise() -> None:
    assert violations(told()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_status(run_pb2.RUN_STATUS_RUNNING), "did not complete"),
        (with_books(results=[Record(Call(0, 1), "done")] * 3), "exactly one result"),
        (with_books(results=[Record(Call(0, 1), "done"), Record(Call(1, 2), "done")]), "exactly one result"),
        (with_books(attempt_ids=["run_1/0/1/1", "run_1/1/2/1", "run_1/1/2/1"]), "an attempt twice"),
        (with_books(attempt_ids=["run_1/0/1/1", "run_1/1/2/2"]), "another ordinal"),
        (with_books(attempt_ids=["run_1/0/1/1", "run_1/1/2/1", "run_1/1/3/1"]), "exactly one record"),
        (with_books(attempts=[Record(Call(1, 2), "unsent")]), "two records"),
        (with_books(attempt_ids=["run_1/0/1/1"]), "do not fit"),
        (with_books(in_flight=[Call(2, 1)]), "still in flight"),
        (lambda story: replace(story, sequences=[1, 3]), "events"),
        (lambda story: replace(story, sequences=[1, 2, 2, 3]), "events"),
        (lambda story: replace(story, in_flight=frozenset()), "not under way at any kill"),
        (lambda story: replace(story, charged_nano_usd=29), "the cost service 29"),
    ],
)
def test_what_is_wrong_is_seen(change: Callable[[Story], Story], says: str) -> None:
    found = violations(change(told()))
    assert any(says in sentence for sentence in found), found
