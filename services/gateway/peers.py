"""The cost service, as the gateway talks to it: holds and settlements that are under way together share an RPC."""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import grpc

from llmlab.api.common.v1 import error_pb2, usage_pb2
from llmlab.api.cost.v1 import budget_pb2, budget_pb2_grpc, hold_pb2, hold_pb2_grpc, spend_pb2, spend_pb2_grpc
from services.gateway.attempts import Cost
from services.gateway.calls import Owner
from services.gateway.cost_port import Reservation, Settlement
from services.gateway.settings import GatewaySettings
from services.gateway.tiers import LEFT_OPEN
from services.gateway.usage import TokenUsage
from services.runtime.auth import ServiceTokenMinter
from services.runtime.batcher import Batcher
from services.runtime.channel import call_metadata
from services.runtime.errors import DomainError, error_of_code
from services.runtime.status import error_from_rpc
from services.runtime.tracing import bind_traceparent, current_traceparent

AnswerT = TypeVar("AnswerT")

_MEASURED = usage_pb2.USAGE_SOURCE_MEASURED
_ESTIMATED = usage_pb2.USAGE_SOURCE_ESTIMATED
_BUDGETS_PAGE = 100
_UNHELD_SOURCE = "gateway-unheld"
"""Source of usage events for attempts that left without a hold and can have none any more."""

_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class CostPeer:
    """CostPort over gRPC, with a service token for the project of the call."""

    def __init__(self, channel: grpc.aio.Channel, minter: ServiceTokenMinter, settings: GatewaySettings) -> None:
        self._stub = hold_pb2_grpc.HoldServiceStub(channel)
        self._usage = spend_pb2_grpc.UsageServiceStub(channel)
        self._budgets = budget_pb2_grpc.BudgetServiceStub(channel)
        self._minter = minter
        self._settings = settings
        self._projects: OrderedDict[str, _ProjectBatches] = OrderedDict()

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        """See CostPort.hold."""
        await self._batches(owner).holds.submit(_hold_item(owner, reservation))

    async def settle(self, owner: Owner, settlement: Settlement) -> Cost:
        """See CostPort.settle."""
        return await self._batches(owner).settlements.submit(_settle_item(settlement))

    async def release(self, owner: Owner, attempt_id: str) -> None:
        """See CostPort.release."""
        await self._batches(owner).releases.submit(_Release(attempt_id, current_traceparent()))

    async def record(self, owner: Owner, reservation: Reservation, settlement: Settlement) -> None:
        """See CostPort.record."""
        if settlement.usage is None:
            return
        asked = "" if reservation.service_tier == LEFT_OPEN else reservation.service_tier
        event = spend_pb2.UsageEvent(
            event_id=settlement.attempt_id,
            source=_UNHELD_SOURCE,
            provider=reservation.provider,
            model=settlement.provider_model or reservation.model,
            usage=encode_usage(settlement.usage),
            attribution=_attribution(owner, reservation),
            service_tier=settlement.service_tier or asked,
        )
        event.occurred_at.FromMicroseconds(settlement.occurred_at_us)
        request = spend_pb2.RecordUsageRequest(events=[event])
        await self._ask(owner.project_id, self._usage.RecordUsage, request, "WRITE", current_traceparent())

    async def has_hard_budget(self, owner: Owner) -> bool:
        """See CostPort.has_hard_budget."""
        token = ""
        while True:
            request = budget_pb2.ListBudgetsRequest(page_size=_BUDGETS_PAGE, page_token=token)
            page = await self._ask(owner.project_id, self._budgets.ListBudgets, request, "READ")
            if any(not budget.soft for budget in page.budgets):
                return True
            token = page.next_page_token
            if not token:
                return False

    @property
    def waiting(self) -> int:
        """Holds, settlements and releases that wait for an RPC to begin, of all projects."""
        return sum(batches.waiting for batches in self._projects.values())

    async def close(self) -> None:
        """Send what was handed in."""
        while self._projects:
            _, batches = self._projects.popitem()
            await batches.close()

    def _batches(self, owner: Owner) -> _ProjectBatches:
        """The project's queues. The one that was not used for longest goes, when there are too many."""
        batches = self._projects.get(owner.project_id)
        if batches is None:
            batches = self._projects[owner.project_id] = self._open(owner.project_id)
            if len(self._projects) > self._settings.cost_projects_max:
                # Whoever waits in it still gets an answer: its task lives until its queue is empty.
                self._projects.popitem(last=False)
        self._projects.move_to_end(owner.project_id)
        return batches

    def _open(self, project_id: str) -> _ProjectBatches:
        async def hold(items: list[hold_pb2.HoldItem]) -> Sequence[Exception | None]:
            answer = await self._ask(project_id, self._stub.HoldBatch, hold_pb2.HoldBatchRequest(items=items))
            return [_error(outcome.error) if outcome.HasField("error") else None for outcome in answer.outcomes]

        async def settle(items: list[hold_pb2.SettleItem]) -> Sequence[Cost | Exception]:
            answer = await self._ask(project_id, self._stub.SettleBatch, hold_pb2.SettleBatchRequest(items=items))
            return [
                _error(outcome.error) if outcome.HasField("error") else _cost(outcome.cost)
                for outcome in answer.outcomes
            ]

        async def release(items: list[_Release]) -> Sequence[Exception | None]:
            attempt_ids = [item.attempt_id for item in items]
            traceparents = {item.attempt_id: item.traceparent for item in items if item.traceparent}
            request = hold_pb2.ReleaseBatchRequest(attempt_ids=attempt_ids, traceparents=traceparents)
            answer = await self._ask(project_id, self._stub.ReleaseBatch, request)
            refused = {outcome.attempt_id: _error(outcome.error) for outcome in answer.refused}
            return [refused.get(attempt_id) for attempt_id in attempt_ids]

        return _ProjectBatches(
            holds=self._batcher(hold, "hold"),
            settlements=self._batcher(settle, "settle"),
            releases=self._batcher(release, "release"),
        )

    def _batcher(self, flush: Callable[[list[Any]], Awaitable[Sequence[Any]]], name: str) -> Batcher[Any, Any]:
        limits = self._settings
        return Batcher(flush, max_batch=limits.cost_batch_max, max_queue=limits.cost_queue_max, name=name)

    async def _ask(
        self,
        project_id: str,
        rpc: Callable[..., Awaitable[AnswerT]],
        request: Any,
        permission: str = "SERVICE",
        traceparent: str = "",
    ) -> AnswerT:
        """The answer. `traceparent`: that of the one call which the request is for."""

        async def ask() -> AnswerT:
            try:
                return await rpc(
                    request,
                    timeout=self._settings.cost_timeout_ms / 1_000,
                    metadata=call_metadata(self._minter.token(project_id, permissions=(permission,))),
                )
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error

        # A batch belongs to many calls: the deadline and request id of the one that happened to start it are not its.
        context = contextvars.Context()
        context.run(bind_traceparent, traceparent)
        return await asyncio.create_task(ask(), context=context)


class _Release(NamedTuple):
    attempt_id: str
    traceparent: str


@dataclass(frozen=True, slots=True)
class _ProjectBatches:
    """The queues of one project; a service token is for one project, so batches are too."""

    holds: Batcher[hold_pb2.HoldItem, None]
    settlements: Batcher[hold_pb2.SettleItem, Cost]
    releases: Batcher[_Release, None]

    @property
    def waiting(self) -> int:
        return self.holds.waiting + self.settlements.waiting + self.releases.waiting

    async def close(self) -> None:
        await self.holds.close()
        await self.settlements.close()
        await self.releases.close()


def encode_usage(usage: TokenUsage) -> usage_pb2.TokenUsage:
    """Usage on the wire."""
    return usage_pb2.TokenUsage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_5m_tokens=usage.cache_write_5m_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        steps=usage.steps,
        source=_MEASURED if usage.measured else _ESTIMATED,
    )


def _hold_item(owner: Owner, reservation: Reservation) -> hold_pb2.HoldItem:
    return hold_pb2.HoldItem(
        attempt_id=reservation.attempt_id,
        nonce=reservation.nonce,
        provider=reservation.provider,
        model=reservation.model,
        input_tokens_max=reservation.input_tokens_max,
        output_tokens_max=reservation.output_tokens_max,
        attribution=_attribution(owner, reservation),
        expires_in_ms=reservation.expires_in_ms,
        steps_max=reservation.steps_max,
        service_tier=reservation.service_tier,
        traceparent=current_traceparent(),
    )


def _attribution(owner: Owner, reservation: Reservation) -> spend_pb2.Attribution:
    return spend_pb2.Attribution(
        user_id=owner.user_id, key_id=owner.key_id, run_id=reservation.run_id, tags=dict(reservation.tags)
    )


def _settle_item(settlement: Settlement) -> hold_pb2.SettleItem:
    item = hold_pb2.SettleItem(
        attempt_id=settlement.attempt_id,
        usage=None if settlement.usage is None else encode_usage(settlement.usage),
        provider_model=settlement.provider_model,
        succeeded=settlement.succeeded,
        service_tier=settlement.service_tier,
        traceparent=current_traceparent(),
    )
    if settlement.occurred_at_us:
        item.occurred_at.FromMicroseconds(settlement.occurred_at_us)
    return item


def _cost(cost: usage_pb2.Cost) -> Cost:
    return Cost(cost.cost_nano_usd, cost.unpriced_calls, cost.price_version)


def _error(error: error_pb2.CallError) -> DomainError:
    reason = error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    code = _CODE_NAMES.get(error.grpc_code, "UNKNOWN")
    return error_of_code(code, reason, error.message, retry_after_ms=error.retry_after_ms or None)
