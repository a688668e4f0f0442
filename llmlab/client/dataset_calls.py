"""Calls about datasets that several experiments use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from llmlab.api.orchestrator.v1 import dataset_pb2, experiment_pb2
from llmlab.api.orchestrator.v1.dataset_pb2_grpc import DatasetServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.orchestrator.v1.dataset_pb2_grpc import DatasetServiceAsyncStub


class DatasetCalls(Connection):
    """Datasets of the project."""

    @property
    def _datasets(self) -> DatasetServiceAsyncStub:
        return DatasetServiceStub(self._channel("orchestrator"))

    async def create_dataset(
        self, name: str, rows: Iterable[experiment_pb2.Row], *, request_id: str = ""
    ) -> dataset_pb2.CreateDatasetResponse:
        """Creates a dataset, or gives the one with these rows; `created` tells which."""
        request = dataset_pb2.CreateDatasetRequest(request_id=request_id, name=name, rows=rows)
        return await self._unary("orchestrator", self._datasets.CreateDataset, request)

    async def get_dataset(self, dataset_id: str) -> dataset_pb2.StoredDataset:
        """Returns one dataset with its rows."""
        request = dataset_pb2.GetDatasetRequest(dataset_id=dataset_id)
        return (await self._unary("orchestrator", self._datasets.GetDataset, request)).dataset

    async def list_datasets(self, *, name: str = "") -> AsyncIterator[dataset_pb2.StoredDataset]:
        """Yields the project's datasets, newest first, without rows; with `name`, only the one of that name."""
        request = dataset_pb2.ListDatasetsRequest(name=name)
        async for page in self._pages("orchestrator", self._datasets.ListDatasets, request):
            for dataset in page.datasets:
                yield dataset

    async def delete_dataset(self, dataset_id: str) -> None:
        """Deletes a dataset; experiments that have taken a copy keep it."""
        request = dataset_pb2.DeleteDatasetRequest(dataset_id=dataset_id)
        await self._unary("orchestrator", self._datasets.DeleteDataset, request)
