"""The second stage of a run: answers whose result is committed are scored, in batches, whenever metrics is there."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from services.orchestrator.ledger import CellScores
from services.orchestrator.plan import RunPlan
from services.orchestrator.policy import WorkerPolicy
from services.orchestrator.ports import Metrics, Sample, ScoringRun
from services.orchestrator.scores import Scored
from services.runtime.errors import DomainError, Unavailable

_ABOUT_ONE_SAMPLE = frozenset({"INVALID_FIELD", "MESSAGE_TOO_LARGE"})
"""Reasons to refuse a whole request for what is wrong with one of its samples, or for their size together."""
_REFUSALS = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"})
"""Codes of refusals that no waiting cures, as for a scorer's parameter that turns out to be wrong."""

_AWAY = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"})
"""Codes of a metrics service that is down, busy or starting: waited for. What is neither this nor a refusal may come
from one of the samples, which takes too long or meets a fault, and would come back for ever."""


_log = logging.getLogger(__name__)


class ScoringBacklog:
    """Answers of one run that wait for their scores.

    The durable backlog is the ledger's (results without scores); this is its part in memory. While metrics is away it
    waits and tries again, and the run goes on.
    """

    def __init__(
        self,
        plan: RunPlan,
        metrics: Metrics,
        policy: WorkerPolicy,
        rng: random.Random,
        scored: Callable[[Sequence[CellScores]], Awaitable[None]],
        dropped: Callable[[Sequence[Sample]], None],
        slots: Callable[[], int],
    ) -> None:
        """`scored` commits scores and returns when they are durable; `dropped` hears what stays without any.

        `slots` is how many calls the run may have under way here; calls of its scorers keep to it as well.
        """
        self._plan = plan
        self._metrics = metrics
        self._policy = policy
        self._rng = rng
        self._scored = scored
        self._dropped = dropped
        self._slots = slots
        # In the order in which they began, as everything that a simulation replays.
        self._requests: dict[asyncio.Task[list[Scored]], None] = {}
        self._waiting: deque[Sample] = deque()
        self._wake = asyncio.Event()
        self._giving_up = False
        self._under_way = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._waiting and not self._under_way

    def add(self, cell: int, answer: str, finish_reason: str, traceparent: str = "") -> None:
        """Hand in an answer."""
        self._waiting.append(self._plan.sample(cell, answer, finish_reason, traceparent))
        self._wake.set()

    def give_up(self) -> None:
        """From now on a failure ends the scoring of what it concerns: a cancelled run does not wait for metrics."""
        self._giving_up = True
        self._wake.set()
        if self._plan.pays_for_scores:
            for request in self._requests:
                request.cancel()

    async def run(self) -> None:
        """Score until cancelled; several of these may run at once."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            # What is paid for is kept soon: a request that breaks loses all of its scores.
            batch_max = self._calls_at_once if self._plan.pays_for_scores else self._policy.score_batch_max
            count = min(len(self._waiting), self._policy.score_batch_max, batch_max)
            samples = [self._waiting.popleft() for _ in range(count)]
            self._under_way += 1
            try:
                await self._score(samples)
            finally:
                self._under_way -= 1

    async def _score(self, samples: list[Sample]) -> None:
        failures = faults = 0
        while True:
            try:
                scored = await self._ask(samples)
                brands = await self._brands(samples)
            except DomainError as error:
                if self._giving_up:
                    self._dropped(samples)
                    return
                about_one = error.reason in _ABOUT_ONE_SAMPLE
                fault = not about_one and error.code not in _AWAY | _REFUSALS
                faults += fault
                if len(samples) > 1 and (about_one or fault):
                    middle = len(samples) // 2
                    await self._score(samples[:middle])
                    await self._score(samples[middle:])
                    return
                if about_one or error.code in _REFUSALS or faults >= self._policy.score_tries_max:
                    _log.warning("run %s: %d answers get no scores: %s", self._plan.run_id, len(samples), error.message)
                    await self._keep(samples, [self._metrics.refused(error)] * len(samples), [b""] * len(samples))
                    return
                failures += 1
                _log.warning("run %s: answers wait for their scores: %s", self._plan.run_id, error.message)
                await asyncio.sleep(self._policy.peer.delay_ms(failures, self._rng) / 1_000)
                continue
            await self._keep(samples, scored, brands)
            return

    @property
    def _calls_at_once(self) -> int:
        """Calls of scorers that one request may have under way."""
        return max(1, self._slots() // self._policy.scoring_concurrency)

    async def _ask(self, samples: Sequence[Sample]) -> list[Scored]:
        if self._giving_up and self._plan.pays_for_scores:
            raise _cancelled()
        run = ScoringRun(self._plan.run_id, self._plan.credential, self._calls_at_once)
        request = asyncio.create_task(self._metrics.score_batch(run, self._plan.scorer_groups, samples))
        self._requests[request] = None
        try:
            await asyncio.wait([request])
        finally:
            request.cancel()
            self._requests.pop(request, None)
        if request.cancelled():
            raise _cancelled()
        return request.result()

    async def _brands(self, samples: Sequence[Sample]) -> list[bytes]:
        if not self._plan.brands:
            return [b""] * len(samples)
        return await self._metrics.detect_brands(self._plan.project_id, self._plan.brands, samples)

    async def _keep(self, samples: Sequence[Sample], scored: Sequence[Scored], brands: Sequence[bytes]) -> None:
        await self._scored(
            [
                CellScores(self._plan.run_id, sample.cell, scores.packed, found, scores.merit)
                for sample, scores, found in zip(samples, scored, brands, strict=True)
            ]
        )


def _cancelled() -> DomainError:
    return Unavailable("DEPENDENCY_UNAVAILABLE", "the run was cancelled, and pays for no further scores")
