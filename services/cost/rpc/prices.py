"""PriceService: what models cost, what calls will cost, and what usage costs."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import price_pb2 as pb
from llmlab.api.cost.v1.price_pb2_grpc import PriceServiceServicer
from services.cost.events import Cost
from services.cost.pricing.catalogue import Catalogue, PriceSource, advice_on, no_such_price
from services.cost.pricing.estimates import estimate, priced, sum_nano_usd
from services.cost.rpc.codec import cost_message, microseconds_of, split_model, usage_of
from services.cost.rpc.price_codec import (
    breakdown_message,
    estimate_message,
    override_message,
    override_of,
    plan_of,
    price_messages,
    tier_message,
)
from services.cost.store.overrides import OverrideStore
from services.cost.usage import check_usage, tier_named
from services.runtime.clock import Clock
from services.runtime.context import current_principal
from services.runtime.ids import new_id
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint
from services.runtime.requests import RequestKey

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 100
_OVERRIDES_DEFAULT: Final = 50
_FIRST: Final = ("", "")


class PriceServicer(PriceServiceServicer):
    """Serves llmlab.api.cost.v1.PriceService."""

    def __init__(self, catalogue: Catalogue, overrides: OverrideStore, clock: Clock) -> None:
        self._catalogue = catalogue
        self._overrides = overrides
        self._clock = clock

    async def GetModelPrice(self, request: pb.GetModelPriceRequest, context: "Context") -> pb.GetModelPriceResponse:
        """Gives the price of a model; NOT_FOUND for an unpriced one."""
        provider, model = split_model(request.model, "model")
        service_tier = tier_named(request.service_tier)
        at_us = self._time(request.at if request.HasField("at") else None)
        prices = await self._overrides.prices(current_principal().project_id)
        quote = prices.quote(provider, (model,), service_tier, at_us)
        if quote is None:
            raise no_such_price(self._catalogue, provider, model, service_tier)
        return pb.GetModelPriceResponse(
            model=request.model,
            price_version=quote.version,
            tiers=[tier_message(tier) for tier in quote.tariff.tiers],
            all=self._all_prices(provider, model, at_us),
            request_nano_usd=quote.tariff.request_nano_usd,
            step_nano_usd=quote.tariff.step_nano_usd,
        )

    async def ListPrices(self, request: pb.ListPricesRequest, context: "Context") -> pb.ListPricesResponse:
        """Lists models that have a price."""
        fingerprint = filter_fingerprint("ListPrices", request.provider, request.name_contains, self._catalogue.version)
        after = decode_page_token(fingerprint, request.page_token) or _FIRST
        size = request.page_size or _PAGE_SIZE_DEFAULT
        key = (str(after[0]), str(after[1]))
        found = self._catalogue.page(request.provider, request.name_contains, key, size + 1)
        page, now_us = found[:size], self._clock.now_us()
        return pb.ListPricesResponse(
            models=[
                pb.ModelPrice(
                    model=f"{price.provider}/{price.model}",
                    prices=[message for message in price_messages(price, now_us) if message.in_force],
                )
                for price in page
            ],
            next_page_token=encode_page_token(fingerprint, (page[-1].provider, page[-1].model))
            if len(found) > size
            else "",
        )

    async def EstimateCost(self, request: pb.EstimateCostRequest, context: "Context") -> pb.EstimateCostResponse:
        """Says what planned calls cost."""
        at_us = self._time(request.at if request.HasField("at") else None)
        # A thousand items would hold the loop for too long.
        prices = await self._overrides.prices(current_principal().project_id)
        advise = partial(advice_on, self._catalogue)
        return await asyncio.to_thread(_estimated, prices, request, at_us, advise)

    async def PriceUsage(self, request: pb.PriceUsageRequest, context: "Context") -> pb.PriceUsageResponse:
        """Prices usage without recording it."""
        prices = await self._prices(request.price_version)
        return await asyncio.to_thread(_priced, prices, request, self._clock.now_us())

    async def CreatePriceOverride(
        self, request: pb.CreatePriceOverrideRequest, context: "Context"
    ) -> pb.CreatePriceOverrideResponse:
        """States a price for the project."""
        project_id = current_principal().project_id
        wanted = override_of(request.override, self._catalogue, project_id, new_id("ovr"))
        key = RequestKey(project_id, "CreatePriceOverride", request.request_id)
        made = await self._overrides.create(key, request.SerializeToString(deterministic=True), wanted)
        return pb.CreatePriceOverrideResponse(override=override_message(made))

    async def ListPriceOverrides(
        self, request: pb.ListPriceOverridesRequest, context: "Context"
    ) -> pb.ListPriceOverridesResponse:
        """Lists the project's overrides."""
        project_id = current_principal().project_id
        fingerprint = filter_fingerprint("ListPriceOverrides", project_id)
        after = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _OVERRIDES_DEFAULT
        found = await self._overrides.page(project_id, after_id=str(after[0]) if after else "", limit=size + 1)
        page = found[:size]
        return pb.ListPriceOverridesResponse(
            overrides=[override_message(override) for override in page],
            next_page_token=encode_page_token(fingerprint, [page[-1].override_id]) if len(found) > size else "",
        )

    async def DeletePriceOverride(
        self, request: pb.DeletePriceOverrideRequest, context: "Context"
    ) -> pb.DeletePriceOverrideResponse:
        """Ends an override."""
        ended = await self._overrides.end(current_principal().project_id, request.override_id)
        return pb.DeletePriceOverrideResponse(override=override_message(ended))

    async def _prices(self, version: str) -> PriceSource:
        if not version:
            return await self._overrides.prices(current_principal().project_id)
        return await asyncio.to_thread(Catalogue.load, version)

    def _all_prices(self, provider: str, model: str, at_us: int) -> pb.ModelPrice:
        found = self._catalogue.find(provider, model)
        if found is None:
            return pb.ModelPrice(model=f"{provider}/{model}")
        return pb.ModelPrice(model=f"{found.provider}/{found.model}", prices=price_messages(found, at_us))

    def _time(self, at: Timestamp | None) -> int:
        return self._clock.now_us() if at is None else microseconds_of(at)


def _estimated(
    prices: PriceSource, request: pb.EstimateCostRequest, at_us: int, advise: Callable[[str, str], str]
) -> pb.EstimateCostResponse:
    estimates = []
    for index, item in enumerate(request.items):
        field = f"items[{index}]"
        estimates.append(estimate(plan_of(item, field), prices, at_us, field, advise))
    expected = sum_nano_usd(one.expected.total_nano_usd for one in estimates)
    worst = sum_nano_usd(one.worst.total_nano_usd for one in estimates)
    return pb.EstimateCostResponse(
        items=[estimate_message(item.model, one) for item, one in zip(request.items, estimates, strict=True)],
        expected_nano_usd=expected,
        worst_case_nano_usd=worst,
    )


def _priced(prices: PriceSource, request: pb.PriceUsageRequest, now_us: int) -> pb.PriceUsageResponse:
    items, costs = [], []
    for index, item in enumerate(request.items):
        cost, message = _priced_item(prices, item, f"items[{index}]", now_us)
        costs.append(cost)
        items.append(message)
    total = usage_pb2.Cost(
        cost_nano_usd=sum_nano_usd(cost.nano_usd for cost in costs),
        unpriced_calls=sum(not cost.priced for cost in costs),
    )
    return pb.PriceUsageResponse(items=items, total=total)


def _priced_item(prices: PriceSource, item: pb.PriceItem, field: str, now_us: int) -> tuple[Cost, pb.PricedUsage]:
    provider, model = split_model(item.model, f"{field}.model")
    usage = usage_of(item.usage)
    check_usage(usage, f"{field}.usage")
    at_us = microseconds_of(item.at) if item.HasField("at") else now_us
    cost, breakdown = priced(prices.quote(provider, (model,), tier_named(item.service_tier), at_us), usage)
    parts = breakdown_message(breakdown) if cost.priced else None
    return cost, pb.PricedUsage(cost=cost_message(cost), breakdown=parts)
