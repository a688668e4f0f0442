"""Serves llmlab.api.metrics.v1.BrandService."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmlab.api.metrics.v1 import brands_pb2 as pb
from llmlab.api.metrics.v1.brands_pb2_grpc import BrandServiceServicer
from services.metrics.brands.answers import AnswerBrands, Depth
from services.metrics.brands.brand_set import Brand
from services.metrics.brands.engine import BrandEngine
from services.metrics.brands.observations import Observations
from services.metrics.brands.visibility import Change, Figures, OfModel, Visibility
from services.metrics.rpc.scores import call_error
from services.metrics.rpc.statistics import estimate_message
from services.runtime.errors import DomainError

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class BrandServicer(BrandServiceServicer):
    """Finds brands in answers and sums up how visible they are."""

    def __init__(self, engine: BrandEngine) -> None:
        self._engine = engine

    async def DetectBrands(self, request: pb.DetectBrandsRequest, context: Context) -> pb.DetectBrandsResponse:
        """Finds brands in answers."""
        brands = tuple(
            Brand(each.name, tuple(each.aliases), tuple(each.excluded_contexts), tuple(each.domains))
            for each in request.brands
        )
        outcomes = await self._engine.detect(
            brands,
            [sample.answer for sample in request.samples],
            Depth(contexts=request.contexts, sentiment=request.sentiment),
        )
        response = pb.DetectBrandsResponse()
        for sample, outcome in zip(request.samples, outcomes, strict=True):
            message = response.samples.add(sample_id=sample.sample_id)
            if isinstance(outcome, DomainError):
                message.error.CopyFrom(call_error(outcome))
            else:
                _fill(message, outcome, contexts=request.contexts)
        return response

    async def SummarizeBrands(self, request: pb.SummarizeBrandsRequest, context: Context) -> pb.SummarizeBrandsResponse:
        """Sums up what was found."""
        summaries = await self._engine.summarize(
            _observations(request.run),
            _observations(request.baseline) if request.HasField("baseline") else None,
            (len(request.brands), len(request.prompts), len(request.models)),
            request.confidence,
        )
        return pb.SummarizeBrandsResponse(
            brands=[_visibility(index, each, request) for index, each in enumerate(summaries)]
        )


def _fill(message: pb.AnswerBrands, found: AnswerBrands, *, contexts: bool) -> None:
    sentiments: Sequence[float | None] = found.sentiments or [None] * len(found.brands)
    for each, sentiment in zip(found.brands, sentiments, strict=True):
        message.brands.add(
            brand=each.brand,
            mentions=each.mentions,
            position=each.position,
            citations=each.citations,
            sentiment=sentiment,
        )
    for index, mention in enumerate(found.mentions):
        added = message.mentions.add(
            brand=mention.brand, start=mention.start, end=mention.end, list_ordinal=mention.list_ordinal
        )
        if found.contexts:
            around = found.contexts[index]
            added.context_start = around.start
            if contexts:
                added.context = around.text
            if around.sentiment is not None:
                added.sentiment = around.sentiment
    for citation in found.citations:
        message.citations.add(domain=citation.domain, brand=citation.brand, times=citation.times)


def _observations(message: pb.BrandObservations) -> Observations:
    def column(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, np.int64)

    return Observations(
        prompts=column(message.prompts),
        models=column(message.models),
        clusters=column(message.clusters),
        missing=column(message.missing),
        found_in=column(message.found_in),
        found_brand=column(message.found_brand),
        found_mentions=column(message.found_mentions),
        found_position=column(message.found_position),
        found_citations=column(message.found_citations),
        found_sentiment=np.array(message.found_sentiment, np.float64),
    )


def _visibility(index: int, found: Visibility, request: pb.SummarizeBrandsRequest) -> pb.BrandVisibility:
    def of_models(models: Sequence[OfModel]) -> list[pb.ModelVisibility]:
        return [pb.ModelVisibility(model=request.models[each.model], figures=_figures(each.figures)) for each in models]

    return pb.BrandVisibility(
        brand=request.brands[index],
        figures=_figures(found.figures),
        prompts=[
            pb.PromptVisibility(
                prompt=request.prompts[each.prompt], figures=_figures(each.figures), models=of_models(each.models)
            )
            for each in found.prompts
        ],
        models=of_models(found.models),
        co_mentions=[
            pb.CoMention(brand=request.brands[each.brand], answers=each.answers, rate=estimate_message(each.rate))
            for each in found.co_mentions
        ],
        change=None if found.change is None else _change(found.change),
    )


def _figures(figures: Figures) -> pb.BrandFigures:
    return pb.BrandFigures(
        answers=figures.answers,
        missing=figures.missing,
        mentioning=figures.mentioning,
        mentions=figures.mentions,
        mention_rate=estimate_message(figures.mention_rate),
        absence_rate=estimate_message(figures.absence_rate),
        average_position=estimate_message(figures.average_position),
        share_of_mentions=estimate_message(figures.share_of_mentions),
        share_of_presence=estimate_message(figures.share_of_presence),
        citation_rate=estimate_message(figures.citation_rate),
        sentiment=estimate_message(figures.sentiment),
        positions=figures.positions,
    )


def _change(change: Change) -> pb.BrandChange:
    return pb.BrandChange(
        baseline=estimate_message(change.baseline),
        difference=change.difference,
        low=change.interval.low,
        high=change.interval.high,
        within_noise=change.within_noise,
    )
