"""Calls about brand sets: brands that several experiments look for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from google.protobuf import field_mask_pb2

from llmlab.api.metrics.v1 import brands_pb2
from llmlab.api.orchestrator.v1 import brand_set_pb2
from llmlab.api.orchestrator.v1.brand_set_pb2_grpc import BrandSetServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.orchestrator.v1.brand_set_pb2_grpc import BrandSetServiceAsyncStub


class BrandSetCalls(Connection):
    """Brand sets of the project."""

    @property
    def _brand_sets(self) -> BrandSetServiceAsyncStub:
        return BrandSetServiceStub(self._channel("orchestrator"))

    async def create_brand_set(
        self, name: str, brands: Sequence[brands_pb2.Brand], *, request_id: str = ""
    ) -> brand_set_pb2.CreateBrandSetResponse:
        """Creates a brand set, or gives the one with these brands; `created` tells which."""
        request = brand_set_pb2.CreateBrandSetRequest(request_id=request_id, name=name, brands=brands)
        return await self._unary("orchestrator", self._brand_sets.CreateBrandSet, request)

    async def get_brand_set(self, brand_set_id: str) -> brand_set_pb2.BrandSet:
        """Returns one brand set with its brands."""
        request = brand_set_pb2.GetBrandSetRequest(brand_set_id=brand_set_id)
        return (await self._unary("orchestrator", self._brand_sets.GetBrandSet, request)).brand_set

    async def list_brand_sets(self, *, name: str = "") -> AsyncIterator[brand_set_pb2.BrandSet]:
        """Yields the project's brand sets, newest first, without brands; with `name`, only the one of that name."""
        request = brand_set_pb2.ListBrandSetsRequest(name=name)
        async for page in self._pages("orchestrator", self._brand_sets.ListBrandSets, request):
            for brand_set in page.brand_sets:
                yield brand_set

    async def update_brand_set(
        self, brand_set_id: str, *, name: str = "", brands: Sequence[brands_pb2.Brand] = (), request_id: str = ""
    ) -> brand_set_pb2.BrandSet:
        """Changes what is given; experiments that have taken a copy keep it. Returns the set without brands."""
        request = brand_set_pb2.UpdateBrandSetRequest(
            request_id=request_id,
            brand_set_id=brand_set_id,
            name=name,
            brands=brands,
            update_mask=field_mask_pb2.FieldMask(
                paths=[path for path, value in (("name", name), ("brands", brands)) if value]
            ),
        )
        return (await self._unary("orchestrator", self._brand_sets.UpdateBrandSet, request)).brand_set

    async def delete_brand_set(self, brand_set_id: str) -> None:
        """Deletes a brand set; experiments that have taken a copy keep it."""
        request = brand_set_pb2.DeleteBrandSetRequest(brand_set_id=brand_set_id)
        await self._unary("orchestrator", self._brand_sets.DeleteBrandSet, request)
