"""RepricingService: pricing anew what is on record."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.cost.v1 import repricing_pb2 as pb
from llmlab.api.cost.v1.repricing_pb2_grpc import RepricingServiceServicer
from services.cost.pricing.repricer import Repricer
from services.cost.pricing.repricing import Difference, Repricing, RepricingFilter, RepricingState
from services.cost.rpc.codec import microseconds_of, timestamp_of
from services.cost.store.repricing import RepricingStore
from services.runtime.context import current_principal
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 50
_STATES: Final = {
    RepricingState.APPLYING: pb.REPRICING_STATE_APPLYING,
    RepricingState.APPLIED: pb.REPRICING_STATE_APPLIED,
    RepricingState.REVERSING: pb.REPRICING_STATE_REVERSING,
    RepricingState.REVERSED: pb.REPRICING_STATE_REVERSED,
}


class RepricingServicer(RepricingServiceServicer):
    """Serves llmlab.api.cost.v1.RepricingService."""

    def __init__(self, repricer: Repricer, store: RepricingStore) -> None:
        self._repricer = repricer
        self._store = store

    async def PreviewRepricing(
        self, request: pb.PreviewRepricingRequest, context: "Context"
    ) -> pb.PreviewRepricingResponse:
        """Says what would change."""
        found = await self._repricer.preview(_project(), _filter_of(request.filter))
        total = Difference()
        for difference in found.values():
            total.merge(difference)
        models = [
            pb.ModelDifference(model=f"{provider}/{model}", difference=_difference(difference))
            for (provider, model), difference in found.items()
        ]
        return pb.PreviewRepricingResponse(models=models, total=_difference(total))

    async def ApplyRepricing(self, request: pb.ApplyRepricingRequest, context: "Context") -> pb.ApplyRepricingResponse:
        """Applies a repricing, or goes on with it."""
        applied = await self._repricer.apply(_project(), request.request_id, _filter_of(request.filter))
        return pb.ApplyRepricingResponse(repricing=_message(applied))

    async def ReverseRepricing(
        self, request: pb.ReverseRepricingRequest, context: "Context"
    ) -> pb.ReverseRepricingResponse:
        """Takes a repricing back, or goes on with that."""
        reversed_one = await self._repricer.reverse(_project(), request.repricing_id)
        return pb.ReverseRepricingResponse(repricing=_message(reversed_one))

    async def ListRepricings(self, request: pb.ListRepricingsRequest, context: "Context") -> pb.ListRepricingsResponse:
        """Lists the project's repricings."""
        project_id = _project()
        fingerprint = filter_fingerprint("ListRepricings", project_id)
        after = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._store.page(project_id, after=int(after[0]) if after else 0, limit=size + 1)
        page = found[:size]
        return pb.ListRepricingsResponse(
            repricings=[_message(repricing) for repricing in page],
            next_page_token=encode_page_token(fingerprint, [page[-1].number]) if len(found) > size else "",
        )


def _project() -> str:
    return current_principal().project_id


def _filter_of(message: pb.RepricingFilter) -> RepricingFilter:
    start_us, end_us = microseconds_of(message.start_time), microseconds_of(message.end_time)
    return RepricingFilter(start_us, end_us, message.provider, message.model)


def _difference(difference: Difference) -> pb.RepricingDifference:
    return pb.RepricingDifference(**asdict(difference))


def _message(repricing: Repricing) -> pb.Repricing:
    wanted = repricing.wanted
    return pb.Repricing(
        repricing_id=repricing.repricing_id,
        filter=pb.RepricingFilter(
            start_time=timestamp_of(wanted.start_us),
            end_time=timestamp_of(wanted.end_us),
            provider=wanted.provider,
            model=wanted.model,
        ),
        state=_STATES[repricing.state],
        difference=_difference(repricing.difference),
        catalogue_version=repricing.catalogue_version,
        create_time=timestamp_of(repricing.created_us),
    )
