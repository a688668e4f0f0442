"""Brands over the wire: what a client sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from llmlab.api.common.v1.error_pb2 import ErrorReason
from llmlab.api.metrics.v1 import brands_pb2 as pb
from llmlab.api.metrics.v1.brands_pb2_grpc import BrandServiceStub
from services.runtime.status import error_from_rpc

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.brands_pb2_grpc import BrandServiceAsyncStub

Metadata = tuple[tuple[str, str], ...]
BRANDS = [
    pb.Brand(name="Stripe", aliases=["Stripe Inc."], domains=["stripe.com"]),
    pb.Brand(name="PayPal"),
    pb.Brand(name="Apple", excluded_contexts=["apple pie"]),
]


@pytest.fixture
def brands(channel: grpc.aio.Channel) -> BrandServiceAsyncStub:
    return BrandServiceStub(channel)


async def test_detection_with_contexts_and_sentiment(brands: BrandServiceAsyncStub, reader: Metadata) -> None:
    english = "1. I love Stripe, it is the best. See https://stripe.com.\n2. This is apple pie.\n3. PayPal is terrible."
    request = pb.DetectBrandsRequest(
        brands=BRANDS,
        samples=[
            pb.BrandSample(sample_id="en", answer=english),
            pb.BrandSample(sample_id="de", answer="Stripe ist f\u00fcr die Firma nicht schlecht und auch gut."),
            pb.BrandSample(sample_id="long", answer="x" * 100_001),
        ],
        contexts=True,
        sentiment=True,
    )
    first, second, third = (await brands.DetectBrands(request, metadata=reader)).samples
    assert first.sample_id == "en"
    assert [(each.brand, each.mentions, each.position, each.citations) for each in first.brands] == [
        (0, 1, 1, 1),
        (1, 1, 2, 0),
    ]
    assert first.brands[0].sentiment > 0.5 > -0.3 > first.brands[1].sentiment
    mention = first.mentions[0]
    assert (english[mention.start : mention.end], mention.list_ordinal) == ("Stripe", 1)
    assert mention.context == "I love Stripe, it is the best."
    assert english[mention.context_start :].startswith(mention.context)
    assert [(each.domain, each.brand, each.times) for each in first.citations] == [("stripe.com", 0, 1)]
    assert not second.brands[0].HasField("sentiment")
    assert third.error.reason == ErrorReason.ERROR_REASON_SCORER_LIMIT


async def test_nothing_that_was_not_asked_for(brands: BrandServiceAsyncStub, reader: Metadata) -> None:
    request = pb.DetectBrandsRequest(brands=BRANDS, samples=[pb.BrandSample(answer="I love Stripe.")])
    mention = (await brands.DetectBrands(request, metadata=reader)).samples[0].mentions[0]
    assert (mention.context, mention.HasField("sentiment")) == ("", False)


async def test_brands_that_clash_are_refused(brands: BrandServiceAsyncStub, reader: Metadata) -> None:
    request = pb.DetectBrandsRequest(
        brands=[pb.Brand(name="Meta"), pb.Brand(name="Facebook", aliases=["META"])], samples=[pb.BrandSample()]
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await brands.DetectBrands(request, metadata=reader)
    error = error_from_rpc(caught.value)
    assert (error.reason, error.field) == ("INVALID_FIELD", "brands[1].aliases[0]")


async def test_summary_nests_by_prompt_and_model(brands: BrandServiceAsyncStub, reader: Metadata) -> None:
    run = pb.BrandObservations(
        prompts=[0, 0, 1, 1],
        models=[0, 1, 0, 1],
        missing=[3],
        found_in=[0, 0, 1],
        found_brand=[0, 1, 0],
        found_mentions=[2, 1, 1],
        found_position=[1, 2, 1],
        found_citations=[0, 0, 1],
        found_sentiment=[0.5, 2.0, 2.0],
    )
    request = pb.SummarizeBrandsRequest(brands=["A", "B"], prompts=["p", "q"], models=["m", "n"], run=run, baseline=run)
    first, second = (await brands.SummarizeBrands(request, metadata=reader)).brands
    figures = first.figures
    assert (figures.answers, figures.missing, figures.mentioning, figures.mentions) == (3, 1, 2, 3)
    assert figures.mention_rate.value == pytest.approx(2 / 3)
    assert (figures.mention_rate.low_if_missing, figures.mention_rate.high_if_missing) == (0.5, 0.75)
    assert list(figures.positions) == [1, 1]
    assert figures.share_of_mentions.value == pytest.approx(3 / 4)
    assert figures.share_of_presence.value == pytest.approx(2 / 3)
    assert [each.prompt for each in first.prompts] == ["p"]
    assert [(each.model, each.figures.mentions) for each in first.prompts[0].models] == [("m", 2), ("n", 1)]
    assert [(each.brand, each.answers) for each in first.co_mentions] == [("B", 1)]
    assert (first.change.difference, first.change.within_noise) == (0.0, True)
    assert not second.figures.sentiment.HasField("value")


async def test_columns_that_do_not_fit_are_refused(brands: BrandServiceAsyncStub, reader: Metadata) -> None:
    run = pb.BrandObservations(prompts=[0], models=[0], found_in=[1])
    request = pb.SummarizeBrandsRequest(brands=["A"], prompts=["p"], models=["m"], run=run)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await brands.SummarizeBrands(request, metadata=reader)
    assert error_from_rpc(caught.value).field == "run.found_in"


async def test_what_its_caller_left_makes_nobody_wait(brands: BrandServiceAsyncStub, reader: Metadata) -> None:
    """A minute of work, which must end with its caller's deadline: one thread does all work here."""
    hostile = [pb.BrandSample(answer="a/" * 50_000)] * 60
    request = pb.DetectBrandsRequest(brands=[pb.Brand(name="a")], samples=hostile)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await brands.DetectBrands(request, metadata=reader, timeout=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    request = pb.DetectBrandsRequest(brands=BRANDS, samples=[pb.BrandSample(answer="I love Stripe.")])
    assert (await brands.DetectBrands(request, metadata=reader, timeout=15)).samples[0].brands
