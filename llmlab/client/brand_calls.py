"""Calls about brands: looking for them, and how visible they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmlab.api.metrics.v1 import brands_pb2
from llmlab.api.metrics.v1.brands_pb2_grpc import BrandServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.metrics.v1.brands_pb2_grpc import BrandServiceAsyncStub


class BrandCalls(Connection):
    """Brands in answers."""

    @property
    def _brands(self) -> BrandServiceAsyncStub:
        return BrandServiceStub(self._channel("metrics"))

    async def detect_brands(
        self,
        brands: Iterable[brands_pb2.Brand],
        samples: Iterable[brands_pb2.BrandSample],
        *,
        contexts: bool = False,
        sentiment: bool = False,
    ) -> list[brands_pb2.AnswerBrands]:
        """Finds brands in answers; with the sentence around each mention and its sentiment, if asked for."""
        request = brands_pb2.DetectBrandsRequest(brands=brands, samples=samples, contexts=contexts, sentiment=sentiment)
        return list((await self._unary("metrics", self._brands.DetectBrands, request)).samples)

    async def summarize_brands(self, request: brands_pb2.SummarizeBrandsRequest) -> list[brands_pb2.BrandVisibility]:
        """Sums up what was found in the answers of a run; `summarize_run_brands` does it for a run that llmlab made."""
        return list((await self._unary("metrics", self._brands.SummarizeBrands, request)).brands)
