"""Detection and summaries of brands off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from services.metrics.brands.answers import AnswerBrands, Depth, detect_answers
from services.metrics.brands.brand_set import Brand
from services.metrics.brands.detection import detector_of
from services.metrics.brands.observations import Observations
from services.metrics.brands.visibility import Visibility, summarize_brands
from services.metrics.engine import Limits, Workers, at_once
from services.metrics.portions import run_portions
from services.metrics.summaries import CONFIDENCE_MIN, DEFAULT_CONFIDENCE
from services.runtime.errors import DomainError, Internal, InvalidField, ResourceExhausted

Outcome: TypeAlias = AnswerBrands | DomainError
"""What was found in an answer, or why it could not be read."""


class BrandEngine:
    """Looks for brands and sums them up in `workers`, within `limits`."""

    def __init__(self, workers: Workers, limits: Limits) -> None:
        self._workers = workers
        self._limits = limits

    async def detect(self, brands: tuple[Brand, ...], answers: Sequence[str], depth: Depth) -> list[Outcome]:
        """The outcome of every answer, in their order: one that can't be read spoils no other.

        Raises:
            InvalidField: the brands make no sense.
            ResourceExhausted: too many tasks wait for a worker.
        """
        await asyncio.to_thread(detector_of, brands)  # checks them
        outcomes: list[Outcome | None] = [self._refusal(answer) for answer in answers]
        accepted = [index for index, refusal in enumerate(outcomes) if refusal is None]
        tasks = list(self._tasks(answers, accepted))
        results = await run_portions(
            lambda task: self._workers.run(detect_answers, brands, [answers[index] for index in task], depth),
            tasks,
            at_once(self._workers),
        )
        for task, found in zip(tasks, results, strict=True):
            for index, each in zip(task, found, strict=True):
                outcomes[index] = _broken() if each.failed else each
        return [outcome for outcome in outcomes if outcome is not None]

    async def summarize(
        self, run: Observations, baseline: Observations | None, sizes: tuple[int, int, int], confidence: float
    ) -> list[Visibility]:
        """The visibility of every brand; a confidence of 0 means the default. Raises as `summarize_brands`."""
        if 0.0 < confidence < CONFIDENCE_MIN:
            raise InvalidField("confidence", f"must be 0 (for {DEFAULT_CONFIDENCE}) or at least {CONFIDENCE_MIN}")
        return await self._workers.run(summarize_brands, run, baseline, sizes, confidence or DEFAULT_CONFIDENCE)

    def _refusal(self, answer: str) -> DomainError | None:
        limit = self._limits.max_text_characters
        if len(answer) <= limit:
            return None
        message = f"the answer has {len(answer)} characters, the limit is {limit}; look through a part of it"
        return ResourceExhausted("SCORER_LIMIT", message)

    def _tasks(self, answers: Sequence[str], accepted: Sequence[int]) -> Iterator[list[int]]:
        """The accepted answers' indices, in runs that are not too long."""
        task: list[int] = []
        characters = 0
        for index in accepted:
            task.append(index)
            characters += len(answers[index])
            if characters >= self._limits.characters_per_task:
                yield task
                task, characters = [], 0
        if task:
            yield task


def _broken() -> DomainError:
    return Internal("INTERNAL", "looking for brands broke on this answer; the server's log has more")
