"""BrandSetService: brands that several experiments look for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.metrics.v1.brands_pb2 import Brand
from llmlab.api.orchestrator.v1 import brand_set_pb2 as pb
from llmlab.api.orchestrator.v1.brand_set_pb2_grpc import BrandSetServiceServicer
from services.orchestrator.brand_sets import BrandSetContent, BrandSetRecord, decode_brands
from services.orchestrator.experiment import BrandTarget
from services.orchestrator.ports import Metrics
from services.orchestrator.rpc.codec import payload_of, timestamp_of
from services.orchestrator.rpc.specs import brand_messages, brands_of
from services.orchestrator.store.brand_sets import SqlBrandSets
from services.runtime.clock import Clock
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import InvalidField
from services.runtime.ids import new_id
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint
from services.runtime.requests import RequestKey

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 50
_CHANGEABLE: Final = ("name", "brands")


class BrandSetServicer(BrandSetServiceServicer):
    """Serves llmlab.api.orchestrator.v1.BrandSetService."""

    def __init__(self, brand_sets: SqlBrandSets, metrics: Metrics, clock: Clock) -> None:
        self._brand_sets = brand_sets
        self._metrics = metrics
        self._clock = clock

    async def CreateBrandSet(self, request: pb.CreateBrandSetRequest, context: Context) -> pb.CreateBrandSetResponse:
        """Creates a brand set, or gives the one with the same brands."""
        project_id = current_principal().project_id
        content = await self._checked(request.brands)
        now_us = self._clock.now_us()
        record = BrandSetRecord(
            brand_set_id=new_id("bset"),
            project_id=project_id,
            name=request.name,
            content_hash=content.content_hash,
            brand_count=len(content.brands),
            created_us=now_us,
            updated_us=now_us,
        )

        def answer(kept: BrandSetRecord) -> bytes:
            created = kept.brand_set_id == record.brand_set_id
            return pb.CreateBrandSetResponse(brand_set=_message(kept), created=created).SerializeToString()

        first = await self._brand_sets.create(
            record,
            content.encoded,
            key=RequestKey(project_id, "CreateBrandSet", request.request_id),
            payload=payload_of(request),
            answer=answer,
        )
        response = pb.CreateBrandSetResponse.FromString(first)
        response.brand_set.brands.extend(brand_messages(content.brands))
        return response

    async def GetBrandSet(self, request: pb.GetBrandSetRequest, context: Context) -> pb.GetBrandSetResponse:
        """Gives one brand set."""
        record, encoded = await self._brand_sets.get(current_principal().project_id, request.brand_set_id)
        return pb.GetBrandSetResponse(brand_set=_message(record, await asyncio.to_thread(decode_brands, encoded)))

    async def ListBrandSets(self, request: pb.ListBrandSetsRequest, context: Context) -> pb.ListBrandSetsResponse:
        """Lists the project's brand sets."""
        project_id = current_principal().project_id
        fingerprint = filter_fingerprint("ListBrandSets", project_id, request.name)
        before = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._brand_sets.page(project_id, request.name, str(before[0]) if before else "", size + 1)
        page = found[:size]
        return pb.ListBrandSetsResponse(
            brand_sets=[_message(record) for record in page],
            next_page_token=encode_page_token(fingerprint, [page[-1].brand_set_id]) if len(found) > size else "",
        )

    async def UpdateBrandSet(self, request: pb.UpdateBrandSetRequest, context: Context) -> pb.UpdateBrandSetResponse:
        """Changes the named fields."""
        project_id = current_principal().project_id
        _check_update(request)
        paths = request.update_mask.paths
        content = await self._checked(request.brands) if "brands" in paths else None

        def change(record: BrandSetRecord) -> BrandSetRecord:
            record = replace(record, updated_us=self._clock.now_us())
            if "name" in paths:
                record = replace(record, name=request.name)
            if content is not None:
                record = replace(record, content_hash=content.content_hash, brand_count=len(content.brands))
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
        await self._brand_sets.delete(current_principal().project_id, request.brand_set_id)
        return pb.DeleteBrandSetResponse()

    async def _checked(self, messages: Sequence[Brand]) -> BrandSetContent:
        """Brands that can be looked for. Raises InvalidField with a path that begins at "brands"."""
        brands = brands_of(messages)
        await self._metrics.check_brands(bearer_token(), brands)
        return await asyncio.to_thread(BrandSetContent.of, brands)


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


def _message(record: BrandSetRecord, brands: Sequence[BrandTarget] = ()) -> pb.BrandSet:
    return pb.BrandSet(
        brand_set_id=record.brand_set_id,
        name=record.name,
        brands=brand_messages(brands),
        brand_count=record.brand_count,
        content_hash=record.content_hash,
        create_time=timestamp_of(record.created_us),
        update_time=timestamp_of(record.updated_us),
    )
