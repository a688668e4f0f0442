"""DatasetService: datasets that several experiments use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llmlab.api.orchestrator.v1 import dataset_pb2 as pb
from llmlab.api.orchestrator.v1.dataset_pb2_grpc import DatasetServiceServicer
from services.orchestrator.library import dataset_content, decode_rows
from services.orchestrator.resources import Content, ResourceRecord
from services.orchestrator.rpc.codec import timestamp_of
from services.orchestrator.rpc.resources import ResourceCalls
from services.orchestrator.rpc.specs import fill_rows, rows_of
from services.orchestrator.store.resources import SqlResources
from services.runtime.clock import Clock

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class DatasetServicer(DatasetServiceServicer):
    """Serves llmlab.api.orchestrator.v1.DatasetService."""

    def __init__(self, datasets: SqlResources, clock: Clock) -> None:
        self._calls = ResourceCalls(datasets, clock)

    async def CreateDataset(self, request: pb.CreateDatasetRequest, context: Context) -> pb.CreateDatasetResponse:
        """Creates a dataset, or gives the one with the same rows."""
        first = await self._calls.create(
            "CreateDataset",
            request,
            await asyncio.to_thread(_content, request),
            lambda kept, created: pb.CreateDatasetResponse(dataset=_message(kept), created=created),
        )
        return pb.CreateDatasetResponse.FromString(first)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        """Gives one dataset."""
        record, encoded = await self._calls.get(request.dataset_id)
        message = _message(record)
        fill_rows(message.rows, await asyncio.to_thread(decode_rows, encoded))
        return pb.GetDatasetResponse(dataset=message)

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        """Lists the project's datasets."""
        page, token = await self._calls.page("ListDatasets", request)
        return pb.ListDatasetsResponse(datasets=map(_message, page), next_page_token=token)

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> pb.DeleteDatasetResponse:
        """Deletes a dataset."""
        await self._calls.delete(request.dataset_id)
        return pb.DeleteDatasetResponse()


def _content(request: pb.CreateDatasetRequest) -> Content:
    return dataset_content(rows_of(request.rows))


def _message(record: ResourceRecord) -> pb.StoredDataset:
    """A dataset without its rows."""
    return pb.StoredDataset(
        dataset_id=record.resource_id,
        name=record.name,
        row_count=record.parts,
        content_hash=record.content_hash,
        create_time=timestamp_of(record.created_us),
    )
