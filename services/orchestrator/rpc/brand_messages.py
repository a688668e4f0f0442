"""Stored brands of answers, as values and as messages."""

from __future__ import annotations

from collections.abc import Sequence

from llmlab.api.metrics.v1 import brands_pb2
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from services.orchestrator.brands import AnswerBrands, Citation, CitedDomain, FoundBrand, Names
from services.orchestrator.spec_view import SpecView


def answer_brands(packed: bytes) -> AnswerBrands | None:
    """What was found in an answer, as it is stored; None where it was not looked through."""
    if not packed:
        return None
    message = brands_pb2.AnswerBrands.FromString(packed)
    if message.HasField("error"):
        return None
    return AnswerBrands(
        tuple(
            FoundBrand(
                each.brand,
                each.mentions,
                each.position,
                each.citations,
                each.sentiment if each.HasField("sentiment") else None,
            )
            for each in message.brands
        ),
        tuple(
            Citation(each.domain, each.brand if each.HasField("brand") else None, each.times)
            for each in message.citations
        ),
    )


def mentioned_brands(packed: bytes, view: SpecView) -> dict[str, int] | None:
    """The brands that an answer mentions, in the order of their first mention, and how often; None: not looked for."""
    found = answer_brands(packed)
    if found is None:
        return None
    return {view.spec.brands[each.brand].name: each.mentions for each in found.brands if each.mentions}


def result_brands(packed: bytes, view: SpecView, *, full: bool) -> list[pb.ResultBrand]:
    """The brands of an answer by their names; `full` with every mention."""
    found = brands_pb2.AnswerBrands.FromString(packed)
    return [
        pb.ResultBrand(
            brand=view.spec.brands[each.brand].name,
            mentions=each.mentions,
            position=each.position,
            citations=each.citations,
            sentiment=each.sentiment if each.HasField("sentiment") else None,
            places=[place for place in found.mentions if place.brand == each.brand] if full else (),
        )
        for each in found.brands
    ]


def brands_message(
    run: pb.Run, visibilities: Sequence[bytes], domains: Sequence[CitedDomain], names: Names
) -> pb.SummarizeRunBrandsResponse:
    """The brands of a run with their figures."""
    return pb.SummarizeRunBrandsResponse(
        run=run,
        brands=[brands_pb2.BrandVisibility.FromString(each) for each in visibilities],
        domains=[
            pb.CitedDomain(
                domain=each.domain,
                brand="" if each.brand is None else names.brands[each.brand],
                answers=each.answers,
                times=each.times,
            )
            for each in domains
        ],
    )
