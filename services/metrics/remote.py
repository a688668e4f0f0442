"""Scores from servers that people run themselves. Only servers that the operator has named are ever asked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, Protocol

from services.metrics.declarations import Absent, Value
from services.metrics.outside import Asked, Origin, OutsideScores
from services.metrics.scorers.remote import RemoteParameters
from services.metrics.scoring import SampleTexts
from services.runtime.portions import portions

_BATCH_CHARACTERS: Final = 250_000
"""After which a batch takes no further sample."""
_MAGNITUDE_MAX: Final = 1e100
"""Statistics take no larger number."""
_REASON_CHARACTERS_MAX: Final = 300


class RemoteFailure(Exception):
    """A remote scorer gave no usable answer. The message says why, to the caller."""


class RemoteScore(NamedTuple):
    """What a remote scorer says of one answer; none of it is checked yet."""

    sample_id: str
    value: float | None
    absent_reason: str


class RemoteServers(Protocol):
    """The servers that the operator has named."""

    async def ask(self, name: str, samples: Sequence[SampleTexts]) -> list[RemoteScore]:
        """What the server `name` says of the samples, whose ids are their places from 0. Raises RemoteFailure."""
        ...


class RemoteScorer:
    """Implements outside.OutsideScorer. What a server fails to score is absent, with the reason."""

    def __init__(self, servers: RemoteServers, names: Collection[str], *, batch_max: int, at_once: int) -> None:
        """At each of the servers `names`, at most `at_once` batches of `batch_max` samples are under way."""
        self._servers = servers
        self._batch_max = batch_max
        self._free = {name: asyncio.Semaphore(at_once) for name in names}

    async def score(
        self, origin: Origin, label: str, parameters: RemoteParameters, samples: Sequence[Asked]
    ) -> list[OutsideScores]:
        """See OutsideScorer.score. The server is one of the names; it hears nothing of the origin."""
        batches = portions(
            [sample.texts for sample in samples], _characters, size_max=_BATCH_CHARACTERS, items_max=self._batch_max
        )
        answers = await asyncio.gather(*(self._ask(parameters.scorer, batch) for batch in batches))
        return [OutsideScores((value,)) for values in answers for value in values]

    async def _ask(self, name: str, batch: Sequence[SampleTexts]) -> list[Value]:
        try:
            async with self._free[name]:
                scores = await self._servers.ask(name, batch)
            return checked_scores(scores, len(batch))
        except RemoteFailure as failure:
            absent = Absent(f"remote scorer {name!r}: {failure}"[:_REASON_CHARACTERS_MAX])
            return [absent] * len(batch)


def _characters(sample: SampleTexts) -> int:
    answer, prompt, references, _ = sample
    return len(answer) + len(prompt) + sum(map(len, references))


def checked_scores(scores: Sequence[RemoteScore], count: int) -> list[Value]:
    """One value for each of `count` samples: nothing that a server sends is taken on trust.

    Raises:
        RemoteFailure: an id was not asked for, or comes twice, so that no score can be told to belong to its answer.
    """
    values: dict[str, Value] = {}
    asked = {str(place) for place in range(count)}
    for score in scores:
        if score.sample_id not in asked:
            raise RemoteFailure("it scored an answer that it was not asked about")
        if score.sample_id in values:
            raise RemoteFailure("it scored the same answer twice")
        values[score.sample_id] = _checked(score)
    missing = Absent("the remote scorer left this answer out")
    return [values.get(str(place), missing) for place in range(count)]


def _checked(score: RemoteScore) -> Value:
    if score.value is None:
        return Absent(
            score.absent_reason[:_REASON_CHARACTERS_MAX] or "the remote scorer gave neither a value nor a reason"
        )
    # Not a number is within no bounds.
    if not abs(score.value) <= _MAGNITUDE_MAX:
        return Absent(f"the remote scorer's value is no number between -{_MAGNITUDE_MAX:g} and {_MAGNITUDE_MAX:g}")
    return score.value
