"""What calls would cost, from the cost service over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from llmlab.api.cost.v1 import price_pb2
from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceStub
from services.orchestrator.peers.identity import metadata_for
from services.orchestrator.ports import CallKind
from services.runtime.status import error_from_rpc

_ITEMS_MAX: Final = 1_000


class GrpcPrices:
    """Implements ports.Prices."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = PriceServiceStub(channel)

    async def estimate(self, token: str, kinds: Sequence[CallKind]) -> dict[CallKind, tuple[int, int] | None]:
        found: dict[CallKind, tuple[int, int] | None] = {}
        # The service refuses all for one without a price, and names it.
        left = list(dict.fromkeys(kinds))
        while left:
            some = left[:_ITEMS_MAX]
            request = price_pb2.EstimateCostRequest(items=map(_item, some))
            try:
                answer = await self._stub.EstimateCost(request, metadata=metadata_for(token))
            except grpc.aio.AioRpcError as rpc_error:
                error = error_from_rpc(rpc_error)
                model = f"{error.metadata.get('provider')}/{error.metadata.get('model')}"
                unpriced = [kind for kind in left if kind.model == model]
                if error.reason != "UNPRICED" or not unpriced:
                    raise error from rpc_error
                found.update(dict.fromkeys(unpriced))
                left = [kind for kind in left if kind.model != model]
                continue
            for kind, item in zip(some, answer.items, strict=True):
                found[kind] = (item.expected.total_nano_usd, item.worst_case.total_nano_usd)
            left = left[_ITEMS_MAX:]
        return found


def _item(kind: CallKind) -> price_pb2.EstimateItem:
    return price_pb2.EstimateItem(
        model=kind.model,
        input_tokens=kind.input_tokens,
        max_output_tokens=kind.output_limit,
        expected_output_tokens=kind.output_tokens,
        calls=kind.calls,
    )
