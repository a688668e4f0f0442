"""Looking through answers in a worker process: what crosses over is plain tuples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from services.metrics.brands.brand_set import Brand
from services.metrics.brands.detection import BrandCount, Citation, Mention, detector_of
from services.metrics.brands.excerpts import sentence_around
from services.metrics.brands.language import is_english
from services.metrics.brands.sentiment import sentiment_of
from services.runtime.stopping import check_stopped

logger = logging.getLogger(__name__)

_DECIMALS = 9


class Context(NamedTuple):
    """The sentence around a mention."""

    text: str
    start: int
    sentiment: float | None


class AnswerBrands(NamedTuple):
    """What one answer says of the brands; `contexts` and `sentiments` are empty unless asked for."""

    brands: tuple[BrandCount, ...] = ()
    mentions: tuple[Mention, ...] = ()
    citations: tuple[Citation, ...] = ()
    contexts: tuple[Context, ...] = ()
    """One for each mention."""
    sentiments: tuple[float | None, ...] = ()
    """One for each brand: the mean over its contexts."""
    failed: bool = False
    """True where detection broke on this answer, which is a fault of ours."""


class Depth(NamedTuple):
    """How closely to look at mentions; sentiment takes many times as long as everything else."""

    contexts: bool = False
    sentiment: bool = False


def detect_answers(brands: tuple[Brand, ...], answers: Sequence[str], depth: Depth) -> list[AnswerBrands]:
    """Looks through each answer by itself; one that breaks detection fails alone.

    Raises:
        InvalidField: the brands make no sense.
        Stopped: nobody waits for the result any more.
    """
    detector = detector_of(brands)
    found: list[AnswerBrands] = []
    for answer in answers:
        check_stopped()
        try:
            detection = detector.detect(answer)
            contexts: tuple[Context, ...] = ()
            if depth.contexts or depth.sentiment:
                contexts = _contexts(answer, detection.mentions, with_sentiment=depth.sentiment)
            sentiments = _means(detection.brands, detection.mentions, contexts) if depth.sentiment else ()
            found.append(AnswerBrands(*detection, contexts=contexts, sentiments=sentiments))
        except Exception:
            logger.exception("looking for brands broke on an answer of %d characters", len(answer))
            found.append(AnswerBrands(failed=True))
    return found


def _contexts(answer: str, mentions: Sequence[Mention], *, with_sentiment: bool) -> tuple[Context, ...]:
    judged = bool(mentions) and with_sentiment and is_english(answer)
    sentiments: dict[tuple[int, int], float] = {}  # several mentions share a sentence
    contexts: list[Context] = []
    for mention in mentions:
        span = sentence_around(answer, mention.start, mention.end)
        text = answer[slice(*span)]
        if judged and span not in sentiments:
            check_stopped()
            sentiments[span] = sentiment_of(text)
        contexts.append(Context(text, span[0], sentiments.get(span)))
    return tuple(contexts)


def _means(
    brands: Sequence[BrandCount], mentions: Sequence[Mention], contexts: Sequence[Context]
) -> tuple[float | None, ...]:
    judged: dict[int, list[float]] = {}
    for mention, context in zip(mentions, contexts, strict=True):
        if context.sentiment is not None:
            judged.setdefault(mention.brand, []).append(context.sentiment)
    return tuple(round(fmean(judged[each.brand]), _DECIMALS) if each.brand in judged else None for each in brands)
