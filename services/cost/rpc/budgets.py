"""BudgetService: limits on spending."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from llmlab.api.cost.v1 import budget_pb2 as pb
from llmlab.api.cost.v1.budget_pb2_grpc import BudgetServiceServicer
from services.cost.budgets import Balance, Budget, check_limit, check_mask, check_name, check_thresholds
from services.cost.periods import PeriodKind, check_zone
from services.cost.rpc.codec import timestamp_of
from services.cost.scopes import Scope, check_scope
from services.cost.store.budgets import BudgetStore
from services.runtime.context import current_principal
from services.runtime.ids import new_id
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint
from services.runtime.requests import RequestKey

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_SIZE_DEFAULT: Final = 50
_KINDS: Final = {
    pb.BUDGET_PERIOD_UNSPECIFIED: PeriodKind.MONTHLY,
    pb.BUDGET_PERIOD_DAILY: PeriodKind.DAILY,
    pb.BUDGET_PERIOD_WEEKLY: PeriodKind.WEEKLY,
    pb.BUDGET_PERIOD_MONTHLY: PeriodKind.MONTHLY,
    pb.BUDGET_PERIOD_QUARTERLY: PeriodKind.QUARTERLY,
    pb.BUDGET_PERIOD_YEARLY: PeriodKind.YEARLY,
    pb.BUDGET_PERIOD_TOTAL: PeriodKind.TOTAL,
}
_PERIODS: Final = {kind: number for number, kind in _KINDS.items()}
# What an update may change: the field of `Budget`, and its checked value.
_CHANGES: Final[dict[str, Callable[[pb.Budget], Any]]] = {
    "name": lambda budget: check_name(budget.name, "budget.name"),
    "limit_nano_usd": lambda budget: check_limit(budget.limit_nano_usd, "budget.limit_nano_usd"),
    "scope": lambda budget: check_scope(_scope(budget.scope), "budget.scope"),
    "soft": lambda budget: budget.soft,
    "thresholds_percent": lambda budget: check_thresholds(budget.thresholds_percent, "budget.thresholds_percent"),
}


class BudgetServicer(BudgetServiceServicer):
    """Serves llmlab.api.cost.v1.BudgetService."""

    def __init__(self, store: BudgetStore) -> None:
        self._store = store

    async def CreateBudget(self, request: pb.CreateBudgetRequest, context: "Context") -> pb.CreateBudgetResponse:
        """Creates a budget."""
        project_id = current_principal().project_id
        budget = Budget(
            budget_id=new_id("bud"),
            project_id=project_id,
            kind=_KINDS[request.budget.period],
            time_zone=check_zone(request.budget.time_zone, "budget.time_zone"),
            created_us=0,
            since_us=0,
            **{name: checked(request.budget) for name, checked in _CHANGES.items()},
        )
        key = RequestKey(project_id, "CreateBudget", request.request_id)
        return pb.CreateBudgetResponse(budget=_message(await self._store.create(key, _payload(request), budget)))

    async def GetBudget(self, request: pb.GetBudgetRequest, context: "Context") -> pb.GetBudgetResponse:
        """Gives one budget."""
        balance = await self._store.get(current_principal().project_id, request.budget_id)
        return pb.GetBudgetResponse(budget=_message(balance))

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: "Context") -> pb.ListBudgetsResponse:
        """Lists the project's budgets."""
        project_id = current_principal().project_id
        scope = check_scope(_scope(request.scope), "scope")
        fingerprint = filter_fingerprint("ListBudgets", project_id, asdict(scope))
        after = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._store.page(project_id, scope, after_id=str(after[0]) if after else "", limit=size + 1)
        page = found[:size]
        last_id = page[-1].budget.budget_id if page else ""
        return pb.ListBudgetsResponse(
            budgets=[_message(balance) for balance in page],
            next_page_token=encode_page_token(fingerprint, [last_id]) if len(found) > size else "",
        )

    async def UpdateBudget(self, request: pb.UpdateBudgetRequest, context: "Context") -> pb.UpdateBudgetResponse:
        """Changes the named fields of a budget."""
        mask = check_mask(request.update_mask.paths, "update_mask")
        changes = {name: _CHANGES[name](request.budget) for name in mask}
        key = RequestKey(current_principal().project_id, "UpdateBudget", request.request_id)
        balance = await self._store.update(key, _payload(request), request.budget_id, changes)
        return pb.UpdateBudgetResponse(budget=_message(balance))

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: "Context") -> pb.DeleteBudgetResponse:
        """Deletes a budget."""
        await self._store.delete(current_principal().project_id, request.budget_id)
        return pb.DeleteBudgetResponse()


def _payload(request: pb.CreateBudgetRequest | pb.UpdateBudgetRequest) -> bytes:
    """The request in a form that is the same for the same content. Its own id, which is the same too, does no harm."""
    return request.SerializeToString(deterministic=True)


def _scope(message: pb.BudgetScope) -> Scope:
    return Scope(message.user_id, message.key_id, message.run_id, message.tag, message.model)


def _message(balance: Balance) -> pb.Budget:
    budget, period = balance.budget, balance.period
    return pb.Budget(
        budget_id=budget.budget_id,
        name=budget.name,
        limit_nano_usd=budget.limit_nano_usd,
        time_zone=budget.time_zone,
        status=pb.BudgetStatus(
            period=period.key,
            settled_nano_usd=balance.settled_nano_usd,
            held_nano_usd=balance.held_nano_usd,
            remaining_nano_usd=balance.remaining_nano_usd,
            resets_at=None if period.endless else timestamp_of(period.ends_us),
        ),
        create_time=timestamp_of(budget.created_us),
        scope=pb.BudgetScope(**asdict(budget.scope)),
        period=_PERIODS[budget.kind],
        soft=budget.soft,
        thresholds_percent=budget.thresholds_percent,
    )
