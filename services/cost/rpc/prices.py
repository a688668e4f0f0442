"""PriceService: what models cost."""

from typing import TYPE_CHECKING, Any

from llmlab.api.cost.v1 import price_pb2 as pb
from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceServicer
from services.cost.catalogue import PriceSource
from services.cost.prices import Tier
from services.cost.rpc.codec import microseconds_of, split_model
from services.runtime.clock import Clock
from services.runtime.errors import NotFound

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class PriceServicer(PriceServiceServicer):
    """Serves llmlab.api.cost.v1.PriceService."""

    def __init__(self, prices: PriceSource, clock: Clock) -> None:
        self._prices = prices
        self._clock = clock

    async def GetModelPrice(self, request: pb.GetModelPriceRequest, context: "Context") -> pb.GetModelPriceResponse:
        """Gives the price of a model; NOT_FOUND for an unpriced one."""
        found = self._prices.find(*split_model(request.model, "model"))
        if found is None:
            raise NotFound("price of model", request.model)
        at_us = microseconds_of(request.at) if request.HasField("at") else self._clock.now_us()
        return pb.GetModelPriceResponse(
            model=request.model,
            price_version=found.version,
            tiers=[_tier(tier) for tier in found.at(at_us).tiers],
        )


def _tier(tier: Tier) -> pb.PriceTier:
    rates = tier.rates
    return pb.PriceTier(
        input_tokens_from=tier.input_tokens_from,
        input_nano_usd_per_mtok=rates.input,
        cache_read_nano_usd_per_mtok=rates.cache_read,
        cache_write_5m_nano_usd_per_mtok=rates.cache_write_5m,
        cache_write_1h_nano_usd_per_mtok=rates.cache_write_1h,
        input_audio_nano_usd_per_mtok=rates.input_audio,
        output_nano_usd_per_mtok=rates.output,
        reasoning_nano_usd_per_mtok=rates.reasoning,
        output_audio_nano_usd_per_mtok=rates.output_audio,
    )
