"""Statistics off the event loop: what is asked is checked, computed in a worker, and comes back."""

from __future__ import annotations

from collections.abc import Sequence

from services.metrics.comparisons import Comparison, Question, compare
from services.metrics.engine import Workers
from services.metrics.ranking import Games, Ranking, rank
from services.metrics.summaries import CONFIDENCE_MIN, DEFAULT_CONFIDENCE, Estimate, Series, summarize_all
from services.runtime.errors import InvalidField


class Statistics:
    """Sums up, compares and ranks in `workers`. A confidence of 0 means the default everywhere."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def summarize(self, series: Sequence[Series], confidence: float) -> list[list[Estimate]]:
        """The estimates of each series.

        Raises:
            InvalidField: a series or the confidence breaks a rule.
            ResourceExhausted: too many tasks wait for a worker.
        """
        return await self._workers.run(summarize_all, series, checked_confidence(confidence))

    async def compare(self, question: Question, confidence: float) -> tuple[str, list[Comparison]]:
        """The group that the others were compared with, and the comparisons.

        Raises:
            InvalidField: a group, the baseline or the confidence breaks a rule.
            ResourceExhausted: too many tasks wait for a worker.
        """
        return await self._workers.run(compare, question, checked_confidence(confidence))

    async def rank(self, games: Games, confidence: float) -> Ranking:
        """The ranking of players.

        Raises:
            InvalidField: the games or the confidence break a rule.
            ResourceExhausted: too many tasks wait for a worker.
        """
        return await self._workers.run(rank, games, checked_confidence(confidence))


def checked_confidence(confidence: float) -> float:
    """The confidence level asked for; 0 means the default. Raises InvalidField."""
    if 0.0 < confidence < CONFIDENCE_MIN:
        raise InvalidField("confidence", f"must be 0 (for {DEFAULT_CONFIDENCE}) or at least {CONFIDENCE_MIN}")
    return confidence or DEFAULT_CONFIDENCE
