"""Calls that price anew what is on record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

from llmlab.api.cost.v1 import repricing_pb2
from llmlab.api.cost.v1.repricing_pb2_grpc import RepricingServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.cost.v1.repricing_pb2_grpc import RepricingServiceAsyncStub

PREVIEW_TIMEOUT_S = 300.0


class RepricingCalls(Connection):
    """Repricings. Times have a zone."""

    @property
    def _repricings(self) -> RepricingServiceAsyncStub:
        return RepricingServiceStub(self._channel("cost"))

    async def preview_repricing(
        self, start: datetime, end: datetime, *, provider: str = "", model: str = ""
    ) -> repricing_pb2.PreviewRepricingResponse:
        """Returns what present prices would change of what occurred from `start` to before `end`, by model."""
        wanted = _filter(start, end, provider, model)
        request = repricing_pb2.PreviewRepricingRequest(filter=wanted)
        return await self._unary("cost", self._repricings.PreviewRepricing, request, PREVIEW_TIMEOUT_S)

    async def apply_repricing(
        self, request_id: str, start: datetime, end: datetime, *, provider: str = "", model: str = ""
    ) -> repricing_pb2.Repricing:
        """Applies a repricing, in as many requests as it takes; the same `request_id` goes on with one that broke off.

        Returns the repricing: APPLIED, unless it was reversed since.
        """
        request = repricing_pb2.ApplyRepricingRequest(
            request_id=request_id, filter=_filter(start, end, provider, model)
        )
        while True:
            repricing = (await self._unary("cost", self._repricings.ApplyRepricing, request)).repricing
            if repricing.state != repricing_pb2.REPRICING_STATE_APPLYING:
                return repricing

    async def reverse_repricing(self, repricing_id: str) -> repricing_pb2.Repricing:
        """Takes the latest repricing back, in as many requests as it takes: sums are what they were before it."""
        request = repricing_pb2.ReverseRepricingRequest(repricing_id=repricing_id)
        while True:
            repricing = (await self._unary("cost", self._repricings.ReverseRepricing, request)).repricing
            if repricing.state != repricing_pb2.REPRICING_STATE_REVERSING:
                return repricing

    async def list_repricings(self) -> AsyncIterator[repricing_pb2.Repricing]:
        """Yields the project's repricings, oldest first."""
        async for page in self._pages("cost", self._repricings.ListRepricings, repricing_pb2.ListRepricingsRequest()):
            for repricing in page.repricings:
                yield repricing


def _filter(start: datetime, end: datetime, provider: str, model: str) -> repricing_pb2.RepricingFilter:
    wanted = repricing_pb2.RepricingFilter(provider=provider, model=model)
    wanted.start_time.FromDatetime(start)
    wanted.end_time.FromDatetime(end)
    return wanted
