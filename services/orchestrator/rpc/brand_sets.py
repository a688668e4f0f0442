"""BrandSetService: brands that several experiments look for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.metrics.v1.brands_pb2 import Brand
from llmlab.api.orchestrator.v1 import brand_set_pb2 as pb
from llmlab.api.orchestrator.v1.brand_set_pb2_grpc import BrandSetServiceServicer
from services.orchestrator.brand_sets import brand_content, decode_brands
from services.orchestrator.experiment import BrandTarget
from services.orchestrator.ports import Metrics
from services.orchestrator.resources import Content, ResourceRecord
from services.orchestrator.rpc.codec import payload_of, timestamp_of
from services.orchestrator.rpc.resources import ResourceCalls
from services.orchestrator.rpc.specs import brand_messages, brands_of
from services.orchestrator.store.resources import SqlResources
from services.runtime.clock import Clock
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import InvalidField
from services.runtime.requests import RequestKey

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_CHANGEABLE: Final = ("name", "brands")


class BrandSetServicer(BrandSetServiceServicer):
    """Serves llmlab.api.orchestrator.v1.BrandSetService."""

    def __init__(self, brand_sets: SqlResources, metrics: Metrics, clock: Clock) -> None:
        self._brand_sets = brand_sets
        self._calls = ResourceCalls(brand_sets, clock)
        self._metrics = metrics
        self._clock = clock

    async def CreateBrandSet(self, request: pb.CreateBrandSetRequest, context: Context) -> pb.CreateBrandSetResponse:
        """Creates a brand set, or gives the one with the same brands."""
        content = await self._checked(request.brands)
        first = await self._calls.create(
            "CreateBrandSet",
            request,
            content,
            lambda kept, created: pb.CreateBrandSetResponse(brand_set=_message(kept), created=created),
        )
        response = pb.CreateBrandSetResponse.FromString(first)
        response.brand_set.brands.extend(brand_messages(await asyncio.to_thread(decode_brands, content.encoded)))
        return response

    async def GetBrandSet(self, request: pb.GetBrandSetRequest, context: Context) -> pb.GetBrandSetResponse:
        """Gives one brand set."""
        record, encoded = await self._calls.get(request.brand_set_id)
        return pb.GetBrandSetResponse(brand_set=_message(record, await asyncio.to_thread(decode_brands, encoded)))

    async def ListBrandSets(self, request: pb.ListBrandSetsRequest, context: Context) -> pb.ListBrandSetsResponse:
        """Lists the project's brand sets."""
        page, token = await self._calls.page("ListBrandSets", request)
        return pb.ListBrandSetsResponse(brand_sets=map(_message, page), next_page_token=token)

    async def UpdateBrandSet(self, request: pb.UpdateBrandSetRequest, context: Context) -> pb.UpdateBrandSetResponse:
        """Changes the named fields."""
        project_id = current_principal().project_id
        _check_update(request)
        paths = request.update_mask.paths
        content = await self._checked(request.brands) if "brands" in paths else None

        def change(record: ResourceRecord) -> ResourceRecord:
            record = replace(record, updated_us=self._clock.now_us())
            if "name" in paths:
                record = replace(record, name=request.name)
            if content is not None:
                record = replace(record, content_hash=content.content_hash, parts=content.parts)
            return record

        first = await self._brand_sets.update(
            request.brand_set_id,
            change,
            None if content is None else content.encoded,
            key=RequestKey(project_id, "UpdateBrandSet", request.request_id),
            payload=payload_of(request),
            answer=lambda record: _message(record).SerializeToString(),
        )
        return pb.UpdateBrandSetResponse(brand_set=pb.BrandSet.FromString(first))

    async def DeleteBrandSet(self, request: pb.DeleteBrandSetRequest, context: Context) -> pb.DeleteBrandSetResponse:
        """Deletes a brand set."""
        await self._calls.delete(request.brand_set_id)
        return pb.DeleteBrandSetResponse()

    async def _checked(self, messages: Sequence[Brand]) -> Content:
        """Brands that can be looked for. Raises InvalidField with a path that begins at "brands"."""
        brands = brands_of(messages)
        await self._metrics.check_brands(bearer_token(), brands)
        return await asyncio.to_thread(brand_content, brands)


def _check_update(request: pb.UpdateBrandSetRequest) -> None:
    paths = list(request.update_mask.paths)
    changeable = ", ".join(_CHANGEABLE)
    if not paths:
        raise InvalidField("update_mask", f"name what to change: {changeable}")
    for path in paths:
        if path not in _CHANGEABLE:
            raise InvalidField("update_mask", f"{path!r} cannot be changed; {changeable} can")
        if not getattr(request, path):
            raise InvalidField(path, f"the mask names {path!r}, so it must not be empty")


def _message(record: ResourceRecord, brands: Sequence[BrandTarget] = ()) -> pb.BrandSet:
    return pb.BrandSet(
        brand_set_id=record.resource_id,
        name=record.name,
        brands=brand_messages(brands),
        brand_count=record.parts,
        content_hash=record.content_hash,
        create_time=timestamp_of(record.created_us),
        update_time=timestamp_of(record.updated_us),
    )
