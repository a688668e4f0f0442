from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.engine import Engine, Limits, Outcome
from services.metrics.registry import ScorerSpec
from services.metrics.scoring import SampleScores, SampleTexts, score_samples
from services.runtime.errors import Internal, InvalidField, ResourceExhausted

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

LIMITS = Limits(samples_per_task=3, characters_per_task=100, max_text_characters=50)


class InPlace:
    """Does the work at once, remembers how it was cut, and dies of one answer as a worker process would."""

    parallel = 1

    def __init__(self, deadly_answer: str = "") -> None:
        self.deadly_answer = deadly_answer
        self.tasks: list[list[SampleTexts]] = []

    async def run(self, fn: Callable[[*Ts], R], *args: *Ts) -> R:
        untyped: tuple[Any, ...] = args
        if fn.__name__ == score_samples.__name__:
            samples = untyped[1]
            self.tasks.append(samples)
            if self.deadly_answer and any(answer == self.deadly_answer for answer, *_ in samples):
                raise Internal("INTERNAL", "two worker processes died on this task")
        return fn(*args)


def texts(*answers: str) -> list[SampleTexts]:
    return [(answer, "", (), "") for answer in answers]


def words(outcome: Outcome) -> float | None:
    assert isinstance(outcome, SampleScores)
    return outcome.values[1]


async def test_scores_come_in_the_order_of_the_samples() -> None:
    workers = InPlace()
    answers = ["w " * count for count in range(1, 11)]
    _, outcomes = await Engine(workers, LIMITS).score([ScorerSpec("length")], texts(*answers))
    assert [words(outcome) for outcome in outcomes] == list(range(1, 11))
    assert [len(task) for task in workers.tasks] == [3, 3, 3, 1]


async def test_long_texts_spread_over_tasks() -> None:
    workers = InPlace()
    await Engine(workers, LIMITS).score([], texts("x" * 50, "x" * 50, "x" * 10, "x" * 10))
    assert [len(task) for task in workers.tasks] == [2, 2]


async def test_a_text_above_the_limit_fails_alone() -> None:
    samples: list[SampleTexts] = [
        ("x" * 51, "", (), ""),
        ("fine", "", (), ""),
        ("fine", "x" * 51, (), ""),
        ("fine", "", ("ok", "x" * 51), ""),
    ]
    _, outcomes = await Engine(InPlace(), LIMITS).score([ScorerSpec("length")], samples)
    assert words(outcomes[1]) == 1.0
    for outcome, name in ((outcomes[0], "answer"), (outcomes[2], "prompt"), (outcomes[3], "reference")):
        assert isinstance(outcome, ResourceExhausted)
        assert outcome.reason == "SCORER_LIMIT"
        assert name in outcome.message


async def test_a_sample_that_kills_its_worker_fails_alone() -> None:
    _, outcomes = await Engine(InPlace("bomb"), LIMITS).score([ScorerSpec("length")], texts("a", "bomb", "b c", "d"))
    assert isinstance(outcomes[1], Internal)
    assert [words(outcome) for outcome in (outcomes[0], outcomes[2], outcomes[3])] == [1.0, 2.0, 1.0]


async def test_a_wrong_choice_of_scorers_fails_before_any_work() -> None:
    workers = InPlace()
    with pytest.raises(InvalidField, match="no scorer is named"):
        await Engine(workers, LIMITS).score([ScorerSpec("nope")], texts("a"))
    assert workers.tasks == []


@given(st.lists(st.text(max_size=60), max_size=12))
async def test_every_sample_has_exactly_one_outcome(answers: list[str]) -> None:
    workers = InPlace()
    _, outcomes = await Engine(workers, LIMITS).score([ScorerSpec("length")], texts(*answers))
    assert len(outcomes) == len(answers)
    assert sum(map(len, workers.tasks)) == sum(len(answer) <= 50 for answer in answers)
    assert all(len(task) <= LIMITS.samples_per_task for task in workers.tasks)
