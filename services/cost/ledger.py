"""The books of one project within one transaction: holds, settlements, releases and reports in the order they came.

The store locks the project, loads the books that a batch of requests touches, lets a `Ledger` apply the requests, and
writes what changed. Everything here is plain computation, so a transaction that has to be tried again begins anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from services.cost.alerting.alerts import AlertDraft, drafts_of
from services.cost.budgets import Balance, Budget, budget_exceeded
from services.cost.events import (
    FREE,
    REPRICING_SOURCE,
    SETTLED_SOURCE,
    Cost,
    HoldOrder,
    Settlement,
    UsageEvent,
    UsageReport,
)
from services.cost.holds import (
    ExpiryPolicy,
    Hold,
    HoldState,
    refusal_of_repeat,
    refusal_of_settlement,
    resolved,
    state_after_expiry,
    tombstone,
)
from services.cost.pricing.attempts import check_amount, cost_of, most_of
from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.estimates import model_name, priced
from services.cost.standings import BalanceKey, Standings
from services.cost.usage import NO_USAGE, Usage, check_usage, possible_tiers, tier_named
from services.runtime.errors import AlreadyExists, DomainError, InvalidField, NotFound, WrongState

HOUR_US = 3_600_000_000
LATE_MAX_US = 366 * 24 * HOUR_US
"""Usage may be told so long after it occurred."""
AHEAD_MAX_US = HOUR_US
"""Clocks of reporters may be so far ahead of the database's."""


class HoldOutcome(NamedTuple):
    """What came of an order; `error` is None where the money is held."""

    attempt_id: str
    held_nano_usd: int = 0
    priced: bool = False
    error: DomainError | None = None


class SettleOutcome(NamedTuple):
    """What came of a settlement; `error` is None where it is recorded."""

    attempt_id: str
    cost: Cost | None = None
    above_hold: bool = False
    error: DomainError | None = None


class ReleaseOutcome(NamedTuple):
    """What came of a release; `error` is None where no money is held."""

    attempt_id: str
    error: DomainError | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is known of an attempt."""

    attempt_id: str
    state: HoldState
    cost: Cost
    """What it cost, or what it is charged for now."""
    usage: Usage | None
    """The settled usage."""


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """What came of a list of reports, all of which are on record."""

    costs: list[Cost]
    duplicates: int


EventKey = tuple[str, str]
"""Source and event id."""


@dataclass(slots=True)
class Books:
    """What the store has loaded of one project."""

    project_id: str
    held_nano_usd: int = 0
    """Everything held in the project, by whatever budgets."""
    holds: dict[str, Hold] = field(default_factory=dict)
    events: dict[EventKey, UsageEvent] = field(default_factory=dict)
    standings: Standings = field(default_factory=Standings)
    """The balances of all that a request can charge."""


class Ledger:
    """Applies requests to the books and remembers what changed."""

    def __init__(self, books: Books, prices: PriceSource, now_us: int) -> None:
        self.books = books
        self.now_us = now_us
        self._prices = prices
        self.new_holds: dict[str, Hold] = {}
        self.changed_holds: dict[str, Hold] = {}
        self.new_events: list[UsageEvent] = []
        self.changed_balances: dict[BalanceKey, int] = {}
        """With what was settled in each before."""
        self._refusals: dict[BalanceKey, int] = {}
        self._unpriced: set[str] = set()

    def hold(self, order: HoldOrder) -> HoldOutcome:
        """Reserve the worst case of an attempt in every budget that matches it, or in none."""
        known = self.books.holds.get(order.attempt_id)
        if known is not None:
            error = refusal_of_repeat(known, order.nonce)
            if error is not None:
                return HoldOutcome(order.attempt_id, error=error)
            return HoldOutcome(order.attempt_id, known.held_nano_usd, known.priced)
        most = most_of(order, self._prices, self.now_us)
        balances = self.books.standings.at(order.target, self.now_us)
        if most is None:
            hard = next((balance.budget for balance in balances if not balance.budget.soft), None)
            if hard is not None:
                self._unpriced.add(f"{order.provider}/{order.model}")
                return HoldOutcome(order.attempt_id, error=_unpriced(order, hard))
        amount = most or 0
        try:
            check_amount(amount, "item")
        except InvalidField as uncountable:
            return HoldOutcome(order.attempt_id, error=uncountable)
        for balance in balances:
            if not balance.admits(amount):
                error = budget_exceeded(balance, amount)
                self._refusals.setdefault((balance.budget.budget_id, balance.period.key), amount)
                return HoldOutcome(order.attempt_id, priced=most is not None, error=error)
        self._change(balances, held=amount)
        self._add_hold(
            Hold(
                order.attempt_id,
                order.nonce,
                HoldState.HELD,
                order.provider,
                order.model,
                order.attribution,
                amount,
                most is not None,
                self.now_us,
                self.now_us + order.expires_in_ms * 1_000,
                possible_tiers(order.service_tier)[0],
            )
        )
        self.books.held_nano_usd += amount
        return HoldOutcome(order.attempt_id, amount, most is not None)

    def settle(self, settlement: Settlement) -> SettleOutcome:
        """Record what an attempt took, at its price, and give its hold back.

        It is charged to every matching budget in the period in which it was held, so that money never moves from a
        period that reserved it to one that did not.
        """
        attempt_id = settlement.attempt_id
        hold = self.books.holds.get(attempt_id)
        if hold is None:
            return SettleOutcome(attempt_id, error=NotFound("hold", attempt_id))
        if hold.state is HoldState.SETTLED:
            event = self.books.events[SETTLED_SOURCE, attempt_id]
            if event.digest != settlement.digest():
                return SettleOutcome(attempt_id, error=resolved(hold))
            return SettleOutcome(attempt_id, event.cost, event.above_hold)
        refusal = refusal_of_settlement(hold)
        if refusal is not None:
            return SettleOutcome(attempt_id, error=refusal)
        try:
            event = self._settled_event(hold, settlement)
        except InvalidField as wrong:
            return SettleOutcome(attempt_id, error=wrong)
        self._give_back(hold)
        self._record(event)
        self._move(hold, HoldState.SETTLED)
        return SettleOutcome(attempt_id, event.cost, event.above_hold)

    def release(self, attempt_id: str) -> ReleaseOutcome:
        """Give a hold back whose attempt was never sent.

        An id without a hold is given up for good: its hold may still be on its way, and nobody would settle it.
        """
        hold = self.books.holds.get(attempt_id)
        if hold is None:
            self._add_hold(tombstone(attempt_id, self.now_us))
        elif hold.state is HoldState.SETTLED:
            return ReleaseOutcome(attempt_id, resolved(hold))
        elif hold.state not in (HoldState.RELEASED, HoldState.TOMBSTONED):
            self._give_back(hold)
            self._move(hold, HoldState.RELEASED)
        return ReleaseOutcome(attempt_id)

    def resolve(self, attempt_id: str) -> Resolution:
        """Say what is known of an attempt; one without a hold is tombstoned."""
        hold = self.books.holds.get(attempt_id)
        if hold is None:
            hold = tombstone(attempt_id, self.now_us)
            self._add_hold(hold)
        if hold.state is HoldState.SETTLED:
            event = self.books.events[SETTLED_SOURCE, attempt_id]
            return Resolution(attempt_id, hold.state, event.cost, event.usage)
        if hold.state in (HoldState.HELD, HoldState.EXPIRED_CHARGED):
            return Resolution(
                attempt_id, hold.state, Cost(hold.held_nano_usd, priced=hold.priced, price_version=""), None
            )
        return Resolution(attempt_id, hold.state, FREE, None)

    def expire(self, attempt_id: str, policy: ExpiryPolicy) -> bool:
        """Stop waiting for the outcome of a hold whose time is over; False where there was nothing to do."""
        hold = self.books.holds.get(attempt_id)
        if hold is None or not hold.expired_at(self.now_us):
            return False
        self._give_back(hold)
        expired = self._move(hold, state_after_expiry(policy))
        if expired.state is HoldState.EXPIRED_CHARGED:
            self._change(self._balances_of(hold), settled=hold.held_nano_usd)
        return True

    def report(self, reports: Sequence[UsageReport]) -> ReportOutcome:
        """Record usage that had no hold: all of the reports, or none and the DomainError of the first wrong one."""
        outcome = ReportOutcome([], 0)
        fresh: dict[EventKey, UsageEvent] = {}
        duplicates = 0
        for index, report in enumerate(reports):
            key = (report.source, report.event_id)
            event = self.books.events.get(key) or fresh.get(key)
            if event is None:
                event = fresh[key] = self._reported_event(report, f"events[{index}]")
            elif event.digest != report.digest():
                raise _mismatch(report)
            else:
                duplicates += 1
            outcome.costs.append(event.cost)
        for event in fresh.values():
            self._record(event)
        return replace(outcome, duplicates=duplicates)

    def adjust(self, adjustment: UsageEvent) -> None:
        """Record the difference that a repricing makes for an event, in the budgets and the period of the event."""
        self._record(adjustment)

    def alerts(self) -> list[AlertDraft]:
        """What this transaction has to tell, judged by the balances as they are at its end."""
        balances = self.books.standings
        changed = [(balances[key], before) for key, before in self.changed_balances.items()]
        refusals = [(balances[key], needed) for key, needed in self._refusals.items()]
        return drafts_of(changed, refusals, self._unpriced, self.now_us)

    def _settled_event(self, hold: Hold, settlement: Settlement) -> UsageEvent:
        usage = settlement.usage or NO_USAGE
        check_usage(usage, "usage")
        occurred_us = hold.created_us
        if settlement.occurred_us is not None:
            occurred_us = settlement.occurred_us
            _check_time(occurred_us, self.now_us, "occurred_at")
        cost, breakdown = cost_of(hold, settlement, occurred_us, self._prices)
        check_amount(cost.nano_usd, "usage")
        # By place, as in every hot path: names would take thrice as long.
        return UsageEvent(
            SETTLED_SOURCE,
            hold.attempt_id,
            settlement.digest(),
            hold.provider,
            hold.model,
            settlement.provider_model,
            hold.attribution,
            usage,
            settlement.succeeded,
            cost,
            breakdown,
            hold.held_nano_usd,
            occurred_us,
            hold.created_us,
            self.now_us,
            tier_named(settlement.service_tier) if settlement.service_tier else hold.service_tier,
        )

    def _reported_event(self, report: UsageReport, field_path: str) -> UsageEvent:
        if report.source in (SETTLED_SOURCE, REPRICING_SOURCE):
            raise InvalidField(
                f"{field_path}.source", f"{report.source!r} is reserved for the service itself; name your own source."
            )
        check_usage(report.usage, f"{field_path}.usage")
        occurred_us = self.now_us if report.occurred_us is None else report.occurred_us
        _check_time(occurred_us, self.now_us, f"{field_path}.occurred_at")
        quote = self._prices.quote(report.provider, (report.model,), report.service_tier, occurred_us)
        cost, breakdown = priced(quote, report.usage)
        check_amount(cost.nano_usd, f"{field_path}.usage")
        return UsageEvent(
            report.source,
            report.event_id,
            report.digest(),
            report.provider,
            report.model,
            "",
            report.attribution,
            report.usage,
            True,
            cost,
            breakdown,
            0,
            occurred_us,
            occurred_us,
            self.now_us,
            report.service_tier,
            report.metadata,
        )

    def _record(self, event: UsageEvent) -> None:
        self.books.events[event.source, event.event_id] = event
        self.new_events.append(event)
        # A repricing that is taken back is no news of the model.
        if event.calls and not event.cost.priced:
            self._unpriced.add(f"{event.provider}/{event.model}")
        self._change(self.books.standings.at(event.target, event.charged_us), settled=event.cost.nano_usd)

    def _give_back(self, hold: Hold) -> None:
        """Take out of the balances what the hold stands for now."""
        if hold.state is HoldState.HELD:
            self.books.held_nano_usd -= hold.held_nano_usd
            self._change(self._balances_of(hold), held=-hold.held_nano_usd)
        elif hold.state is HoldState.EXPIRED_CHARGED:
            self._change(self._balances_of(hold), settled=-hold.held_nano_usd)

    def _balances_of(self, hold: Hold) -> tuple[Balance, ...]:
        return self.books.standings.at(hold.target, hold.created_us)

    def _change(self, balances: Iterable[Balance], *, held: int = 0, settled: int = 0) -> None:
        """Move amounts, nano-USD, in every one of the balances."""
        if not held and not settled:
            return
        for balance in balances:
            self.changed_balances.setdefault((balance.budget.budget_id, balance.period.key), balance.settled_nano_usd)
            balance.held_nano_usd += held
            balance.settled_nano_usd += settled

    def _add_hold(self, hold: Hold) -> None:
        self.books.holds[hold.attempt_id] = hold
        self.new_holds[hold.attempt_id] = hold

    def _move(self, hold: Hold, state: HoldState) -> Hold:
        moved = hold.moved(state)
        self.books.holds[hold.attempt_id] = moved
        # A hold that is made and resolved in one transaction is written once, in its last state.
        changed = self.new_holds if hold.attempt_id in self.new_holds else self.changed_holds
        changed[hold.attempt_id] = moved
        return moved


def is_acceptable(occurred_us: int, now_us: int) -> bool:
    """Whether usage of that time may be told now."""
    return now_us - LATE_MAX_US <= occurred_us <= now_us + AHEAD_MAX_US


def _check_time(occurred_us: int, now_us: int, field_path: str) -> None:
    if not is_acceptable(occurred_us, now_us):
        raise InvalidField(field_path, "The time has to be at most 366 days ago and 1 hour ahead.")


def _unpriced(order: HoldOrder, budget: Budget) -> WrongState:
    model = model_name(order.provider, order.model, order.service_tier)
    return WrongState(
        "UNPRICED",
        f"{model} has no price, and budget {budget.name!r} ({budget.budget_id}) is a hard limit: what the call could "
        "cost is unknown, so it is not sent. Use a priced model and service tier, or make the budget soft.",
        subject=f"model:{order.provider}/{order.model}",
        metadata={
            "provider": order.provider,
            "model": order.model,
            "service_tier": order.service_tier,
            "budget_id": budget.budget_id,
        },
    )


def _mismatch(report: UsageReport) -> AlreadyExists:
    return AlreadyExists(
        "USAGE_EVENT_MISMATCH",
        f"Event {report.event_id!r} of source {report.source!r} was recorded before with another payload; nothing of "
        "this request was recorded. Send the first payload again, or use another event id.",
        metadata={"event_id": report.event_id, "source": report.source},
    )
