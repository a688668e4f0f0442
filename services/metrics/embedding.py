"""The scorers that compare vectors of an embedding model, whose calls the caller pays."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from services.metrics.declarations import Absent, Value
from services.metrics.outside import Asked, Origin, OutsideScores
from services.metrics.scorers.embedding import SENTENCES_MAX, EmbeddingParameters
from services.metrics.scoring import Detail, SampleTexts
from services.metrics.text import split_sentences
from services.runtime.portions import portions
from services.runtime.tracing import continued, current_traceparent

Vector: TypeAlias = npt.NDArray[np.float64]
"""Of length 1."""
Pairs: TypeAlias = list[tuple[str, str]]

TEXT_BYTES_MAX: Final = 65_536
"""The longest text that the gateway takes."""
_CALL_TEXTS_MAX: Final = 128
_CALL_BYTES_MAX: Final = 1_000_000
_SET_CHARACTERS: Final = 12
_TOO_LONG: Final = Absent(f"a text is longer than the {TEXT_BYTES_MAX} bytes that an embedding takes")
_NO_DIRECTION: Final = Absent("the model gave a vector without a direction")


@dataclass(frozen=True, slots=True)
class Embedded:
    """What came of one call: a vector for each text, or why there is none."""

    vectors: Sequence[Sequence[float]] = ()
    failure: str = ""
    cost_nano_usd: int = 0
    unpriced_calls: int = 0


class Embeddings(Protocol):
    """Calls embedding models on the caller's behalf: the caller's budgets and limits hold."""

    async def embed(self, token: str, model: str, texts: Sequence[str], *, run_id: str, call_id: str) -> Embedded:
        """The vectors of 1 - 128 texts. `call_id` names the call within its run; empty outside one.

        Raises:
            DomainError: the credential is not accepted.
        """
        ...


def relevance_pairs(texts: SampleTexts) -> Pairs | Absent:
    """Prompt and answer."""
    answer, prompt, _, _ = texts
    if not prompt.strip():
        return Absent("the sample has no prompt")
    return [(prompt, answer)] if answer.strip() else Absent("the answer is empty")


def similarity_pairs(texts: SampleTexts) -> Pairs | Absent:
    """The answer with each reference."""
    answer, _, references, _ = texts
    if not any(map(str.strip, references)):
        return Absent("the sample has no reference")
    return [(answer, each) for each in references if each.strip()] if answer.strip() else Absent("the answer is empty")


def coherence_pairs(texts: SampleTexts) -> Pairs | Absent:
    """Neighbouring sentences."""
    pairs = list(itertools.pairwise(split_sentences(texts[0])[:SENTENCES_MAX]))
    return pairs or Absent("the answer has fewer than two sentences")


class EmbeddingScorer:
    """Implements outside.OutsideScorer: cosines of pairs of texts, put together into one score."""

    def __init__(
        self,
        embeddings: Embeddings,
        pairs: Callable[[SampleTexts], Pairs | Absent],
        together: Callable[[Sequence[float]], float],
        *,
        at_once: int,
    ) -> None:
        """`at_once` is the most calls of one request under way."""
        self._embeddings = embeddings
        self._pairs = pairs
        self._together = together
        self._at_once = at_once

    async def score(
        self, origin: Origin, label: str, parameters: EmbeddingParameters, samples: Sequence[Asked]
    ) -> list[OutsideScores]:
        """See OutsideScorer.score. A text that occurs several times is paid once, by the first sample that has it."""
        pairs = await asyncio.to_thread(self._all_pairs, samples)
        present = (each for each in pairs if not isinstance(each, Absent))
        texts = list(dict.fromkeys(text for each in present for pair in each for text in pair))
        traceparent = next((each.traceparent for each in samples if each.traceparent), current_traceparent())
        free = asyncio.Semaphore(min(self._at_once, origin.calls_at_once_max or self._at_once))

        async def embed(place: int, batch: list[str]) -> Embedded:
            call_id = _call_id(origin, label, parameters.model, samples, place)
            # Texts of several samples share a call: it is in the trace of the first one that has any.
            async with free:
                with continued(traceparent):
                    return await self._embeddings.embed(
                        origin.token, parameters.model, batch, run_id=origin.run_id, call_id=call_id
                    )

        batches = list(
            portions(texts, lambda text: len(text.encode()), size_max=_CALL_BYTES_MAX, items_max=_CALL_TEXTS_MAX)
        )
        calls = await asyncio.gather(*(embed(place, batch) for place, batch in enumerate(batches)))
        found = dict(part for batch, call in zip(batches, calls, strict=True) for part in _parts(batch, call))
        return await asyncio.to_thread(self._scores, pairs, found)

    def _all_pairs(self, samples: Sequence[Asked]) -> list[Pairs | Absent]:
        return [_of_bounded_length(self._pairs(sample.texts)) for sample in samples]

    def _scores(self, pairs: Sequence[Pairs | Absent], found: Mapping[str, _Part]) -> list[OutsideScores]:
        unpaid = dict(found)
        scores: list[OutsideScores] = []
        for each in pairs:
            if isinstance(each, Absent):
                scores.append(OutsideScores((each,)))
                continue
            parts = [part for text in dict.fromkeys(itertools.chain(*each)) if (part := unpaid.pop(text, None))]
            detail = Detail(sum(part.cost_nano_usd for part in parts), sum(part.unpriced_calls for part in parts))
            scores.append(OutsideScores((self._value(each, found),), detail))
        return scores

    def _value(self, pairs: Pairs, found: Mapping[str, _Part]) -> Value:
        cosines: list[float] = []
        for left, right in pairs:
            first, second = found[left].vector, found[right].vector
            if isinstance(first, Absent):
                return first
            if isinstance(second, Absent):
                return second
            if len(first) != len(second):
                return _NO_DIRECTION
            cosines.append(min(1.0, max(-1.0, float(first @ second))))
        return self._together(cosines)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a call came to for one of its texts."""

    vector: Vector | Absent
    cost_nano_usd: int
    unpriced_calls: int


def _of_bounded_length(pairs: Pairs | Absent) -> Pairs | Absent:
    if isinstance(pairs, Absent) or all(len(text.encode()) <= TEXT_BYTES_MAX for pair in pairs for text in pair):
        return pairs
    return _TOO_LONG


def _call_id(origin: Origin, label: str, model: str, samples: Sequence[Asked], place: int) -> str:
    """Says what a run's call is for, so that a request that is sent again comes to the same id."""
    if not origin.run_id:
        return ""
    told = repr((label, model, [sample.sample_id for sample in samples]))
    digest = hashlib.sha256(told.encode()).hexdigest()[:_SET_CHARACTERS]
    return f"{origin.run_id}/{samples[0].sample_id}/{digest}/{place + 1}"


def _parts(texts: Sequence[str], call: Embedded) -> Iterator[tuple[str, _Part]]:
    """Each text with its vector and its part of the bill, by its length; the parts sum to the whole."""
    characters = sum(map(len, texts))
    before = paid = 0
    for place, text in enumerate(texts):
        before += len(text)
        share = call.cost_nano_usd * before // characters - paid
        paid += share
        vector = Absent(call.failure) if call.failure else _direction(call.vectors[place])
        yield text, _Part(vector, share, call.unpriced_calls if place == 0 else 0)


def _direction(values: Sequence[float]) -> Vector | Absent:
    vector = np.asarray(values, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    return vector / length if 0.0 < length < np.inf else _NO_DIRECTION
