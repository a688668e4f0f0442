"""HoldService: money before and after a call."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from llmlab.api.cost.v1 import hold_pb2 as pb
from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceServicer
from services.cost.bookkeeping import Bookkeeping
from services.cost.events import HoldOrder, Settlement
from services.cost.holds import HoldState
from services.cost.ledger import HoldOutcome, ReleaseOutcome, Resolution, SettleOutcome
from services.cost.rpc.codec import (
    attribution_of,
    call_error,
    check_texts,
    cost_message,
    microseconds_of,
    usage_message,
    usage_of,
)
from services.cost.usage import tier_named
from services.runtime.context import current_principal
from services.runtime.errors import InvalidField
from services.runtime.item_spans import ItemSpans, item_spans

if TYPE_CHECKING:
    import grpc

    from services.runtime.spans import Tracer

    Context = grpc.aio.ServicerContext[Any, Any]

Item = TypeVar("Item")
Read = TypeVar("Read")

_STATES: Final = {
    HoldState.HELD: pb.ATTEMPT_STATE_HELD,
    HoldState.SETTLED: pb.ATTEMPT_STATE_SETTLED,
    HoldState.RELEASED: pb.ATTEMPT_STATE_RELEASED,
    HoldState.EXPIRED_CHARGED: pb.ATTEMPT_STATE_EXPIRED,
    HoldState.EXPIRED_RELEASED: pb.ATTEMPT_STATE_EXPIRED,
    HoldState.TOMBSTONED: pb.ATTEMPT_STATE_TOMBSTONED,
}


class HoldServicer(HoldServiceServicer):
    """Serves llmlab.api.cost.v1.HoldService."""

    def __init__(self, books: Bookkeeping, tracer: "Tracer | None" = None) -> None:
        self._books = books
        self._tracer = tracer

    async def Hold(self, request: pb.HoldRequest, context: "Context") -> pb.HoldResponse:
        """Reserves for one attempt; a refusal is a status."""
        (outcome,) = await self._books.hold(_project(), [_order(request.item)])
        if outcome.error is not None:
            raise outcome.error
        return pb.HoldResponse(outcome=_hold_outcome(outcome))

    async def HoldBatch(self, request: pb.HoldBatchRequest, context: "Context") -> pb.HoldBatchResponse:
        """Reserves for several attempts."""
        with item_spans(self._tracer, "hold", request.items) as spans:
            orders, refused = _readable(request.items, _order)
            outcomes = await self._books.hold(_project(), orders)
            for index, error in refused.items():
                outcomes.insert(index, HoldOutcome(request.items[index].attempt_id, error=error))
            _tell(spans, outcomes)
        return pb.HoldBatchResponse(outcomes=[_hold_outcome(outcome) for outcome in outcomes])

    async def Settle(self, request: pb.SettleRequest, context: "Context") -> pb.SettleResponse:
        """Settles one attempt; a refusal is a status."""
        (outcome,) = await self._books.settle(_project(), [_settlement(request.item)])
        if outcome.error is not None:
            raise outcome.error
        return pb.SettleResponse(outcome=_settle_outcome(outcome))

    async def SettleBatch(self, request: pb.SettleBatchRequest, context: "Context") -> pb.SettleBatchResponse:
        """Settles several attempts."""
        with item_spans(self._tracer, "settle", request.items) as spans:
            settlements, refused = _readable(request.items, _settlement)
            outcomes = await self._books.settle(_project(), settlements)
            for index, error in refused.items():
                outcomes.insert(index, SettleOutcome(request.items[index].attempt_id, error=error))
            _tell(spans, outcomes)
        return pb.SettleBatchResponse(outcomes=[_settle_outcome(outcome) for outcome in outcomes])

    async def Release(self, request: pb.ReleaseRequest, context: "Context") -> pb.ReleaseResponse:
        """Gives one hold back; a refusal is a status."""
        check_texts(request.attempt_id)
        (outcome,) = await self._books.release(_project(), [request.attempt_id])
        if outcome.error is not None:
            raise outcome.error
        return pb.ReleaseResponse()

    async def ReleaseBatch(self, request: pb.ReleaseBatchRequest, context: "Context") -> pb.ReleaseBatchResponse:
        """Gives several holds back."""
        check_texts(*request.attempt_ids)
        releases = [_Release(request.traceparents.get(attempt_id, "")) for attempt_id in request.attempt_ids]
        with item_spans(self._tracer, "release", releases) as spans:
            outcomes = await self._books.release(_project(), request.attempt_ids)
            _tell(spans, outcomes)
        refused = [
            pb.HoldOutcome(attempt_id=outcome.attempt_id, error=call_error(outcome.error))
            for outcome in outcomes
            if outcome.error is not None
        ]
        return pb.ReleaseBatchResponse(refused=refused)

    async def ResolveAttempts(
        self, request: pb.ResolveAttemptsRequest, context: "Context"
    ) -> pb.ResolveAttemptsResponse:
        """Says what is known of attempts."""
        check_texts(*request.attempt_ids)
        resolutions = await self._books.resolve(_project(), request.attempt_ids)
        return pb.ResolveAttemptsResponse(attempts=[_resolved(resolution) for resolution in resolutions])


class _Release(NamedTuple):
    traceparent: str


def _tell(spans: ItemSpans | None, outcomes: Sequence[HoldOutcome | SettleOutcome | ReleaseOutcome]) -> None:
    """Put into the recorded items' spans what came of them."""
    if spans is None:
        return
    for index, outcome in enumerate(outcomes):
        spans.set(index, {"llmlab.attempt.id": outcome.attempt_id})
        if outcome.error is not None:
            spans.fail(index, outcome.error.reason)


def _project() -> str:
    return current_principal().project_id


def _readable(items: Sequence[Item], read: Callable[[Item], Read]) -> tuple[list[Read], dict[int, InvalidField]]:
    """What the items say, and why those that cannot be read are refused, by their place in ascending order."""
    found: list[Read] = []
    refused: dict[int, InvalidField] = {}
    for index, item in enumerate(items):
        try:
            found.append(read(item))
        except InvalidField as error:
            refused[index] = error
    return found, refused


def _order(item: pb.HoldItem) -> HoldOrder:
    check_texts(item.attempt_id, item.nonce, item.provider, item.model)
    return HoldOrder(
        item.attempt_id,
        item.nonce,
        item.provider,
        item.model,
        item.input_tokens_max,
        item.output_tokens_max,
        attribution_of(item.attribution),
        item.expires_in_ms,
        tier_named(item.service_tier),
        item.steps_max,
    )


def _settlement(item: pb.SettleItem) -> Settlement:
    check_texts(item.attempt_id, item.provider_model)
    return Settlement(
        item.attempt_id,
        usage_of(item.usage) if item.HasField("usage") else None,
        item.provider_model,
        microseconds_of(item.occurred_at) if item.HasField("occurred_at") else None,
        item.succeeded,
        item.service_tier,
    )


def _hold_outcome(outcome: HoldOutcome) -> pb.HoldOutcome:
    return pb.HoldOutcome(
        attempt_id=outcome.attempt_id,
        error=None if outcome.error is None else call_error(outcome.error),
        held_nano_usd=outcome.held_nano_usd,
        priced=outcome.priced,
    )


def _settle_outcome(outcome: SettleOutcome) -> pb.SettleOutcome:
    return pb.SettleOutcome(
        attempt_id=outcome.attempt_id,
        error=None if outcome.error is None else call_error(outcome.error),
        cost=None if outcome.cost is None else cost_message(outcome.cost),
        above_hold=outcome.above_hold,
    )


def _resolved(resolution: Resolution) -> pb.ResolvedAttempt:
    known = resolution.state not in (HoldState.TOMBSTONED, HoldState.RELEASED)
    return pb.ResolvedAttempt(
        attempt_id=resolution.attempt_id,
        state=_STATES[resolution.state],
        cost=cost_message(resolution.cost) if known else None,
        usage=None if resolution.usage is None else usage_message(resolution.usage),
    )
