"""Scoring off the event loop: batches are cut into tasks for the workers, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar, TypeVarTuple

from services.metrics.portions import run_portions
from services.metrics.registry import Plan, ScorerSpec
from services.metrics.scoring import FrozenSpec, SampleScores, SampleTexts, freeze_spec, plan_of, score_samples
from services.runtime.errors import DomainError, Internal, ResourceExhausted

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

Outcome: TypeAlias = SampleScores | DomainError
"""A sample's scores, or why it has none."""


class Workers(Protocol):
    """Where work is done; services.runtime.pool.ProcessPool is one."""

    @property
    def parallel(self) -> int:
        """Tasks that are worked on at the same time."""
        ...

    async def run(self, fn: Callable[[*Ts], R], *args: *Ts) -> R:
        """`fn(*args)`, computed elsewhere. Raises Internal where the worker died of it."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How large texts and tasks may be."""

    samples_per_task: int
    characters_per_task: int
    max_text_characters: int


def at_once(workers: Workers) -> int:
    """Tasks of one request that are handed in at a time: one for each worker, and one that waits for the first."""
    return workers.parallel + 1


def _characters(sample: SampleTexts) -> int:
    answer, prompt, references, _ = sample
    return len(answer) + len(prompt) + sum(map(len, references))


class Engine:
    """Scores in `workers`, within `limits`."""

    def __init__(self, workers: Workers, limits: Limits) -> None:
        self._workers = workers
        self._limits = limits

    async def score(self, specs: Sequence[ScorerSpec], samples: Sequence[SampleTexts]) -> tuple[Plan, list[Outcome]]:
        """The outcome of every sample, in their order: one that can't be scored spoils no other.

        Raises:
            InvalidField: the choice of scorers is wrong.
            ResourceExhausted: too many tasks wait for a worker.
        """
        frozen = tuple(map(freeze_spec, specs))
        plan = plan_of(frozen)
        outcomes: list[Outcome | None] = [self.refusal(sample) for sample in samples]
        accepted = [index for index, refusal in enumerate(outcomes) if refusal is None]
        tasks = list(self._tasks(samples, accepted))
        results = await run_portions(
            lambda task: self._run(frozen, [samples[index] for index in task]), tasks, at_once(self._workers)
        )
        for task, scored in zip(tasks, results, strict=True):
            for index, outcome in zip(task, scored, strict=True):
                outcomes[index] = outcome
        return plan, [outcome for outcome in outcomes if outcome is not None]

    def refusal(self, sample: SampleTexts) -> DomainError | None:
        """Why a sample is not looked at; None where it is."""
        answer, prompt, references, _ = sample
        limit = self._limits.max_text_characters
        for name, text in (("answer", answer), ("prompt", prompt), *(("reference", text) for text in references)):
            if len(text) > limit:
                message = f"the {name} has {len(text)} characters, the limit is {limit}; score a part of it"
                return ResourceExhausted("SCORER_LIMIT", message)
        return None

    def _tasks(self, samples: Sequence[SampleTexts], accepted: Sequence[int]) -> Iterator[list[int]]:
        """The accepted samples' indices, in runs that are neither too many nor too long."""
        task: list[int] = []
        characters = 0
        for index in accepted:
            task.append(index)
            characters += _characters(samples[index])
            if len(task) == self._limits.samples_per_task or characters >= self._limits.characters_per_task:
                yield task
                task, characters = [], 0
        if task:
            yield task

    async def _run(self, specs: tuple[FrozenSpec, ...], samples: list[SampleTexts]) -> list[Outcome]:
        try:
            scored = await self._workers.run(score_samples, specs, samples)
        except Internal as error:
            # The worker died. Alone, the samples that did not kill it survive.
            if len(samples) == 1:
                return [error]
            alone = [await self._run(specs, [sample]) for sample in samples]
            return [outcome for outcomes in alone for outcome in outcomes]
        return [_broken() if scores.failed else scores for scores in scored]


def _broken() -> DomainError:
    return Internal("INTERNAL", "a scorer broke on this sample; the server's log has more")
