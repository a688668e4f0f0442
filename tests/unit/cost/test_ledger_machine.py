"""Random sequences of requests against a model that counts in the simplest way that can be right."""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.cost.holds import ExpiryPolicy, HoldState
from tests.support.cost import HOUR_US, NOVEMBER_US, LedgerOfBooks, budget, order, report, settlement, worst_case_of

LIMITS = (400_000, 900_000)
ids = st.sampled_from([f"a{number}" for number in range(12)])
tokens = st.integers(0, 300)


class HoldsAndBudgets(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        budgets = [budget(limit, budget_id=f"bud_{index}") for index, limit in enumerate(LIMITS)]
        self.books = LedgerOfBooks(*budgets)
        self.live: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        self.unbounded = False

    @rule(attempt_id=ids, tokens=tokens, nonce=st.sampled_from(["n1", "n2"]))
    def hold(self, attempt_id: str, tokens: int, nonce: str) -> None:
        known = self.books.books.holds.get(attempt_id)
        outcome = self.books.ledger().hold(order(attempt_id, tokens=tokens, nonce=nonce))
        if known is not None:
            assert (outcome.error is None) == (known.nonce == nonce and known.state is HoldState.HELD)
            return
        used = sum(self.live.values()) + sum(self.charged.values()) + sum(self.spent.values())
        fits = worst_case_of(tokens) <= max(0, min(LIMITS) - used)
        assert (outcome.error is None) == fits
        if fits:
            self.live[attempt_id] = worst_case_of(tokens)

    @rule(attempt_id=ids, tokens=tokens)
    def settle(self, attempt_id: str, tokens: int) -> None:
        outcome = self.books.ledger().settle(settlement(attempt_id, tokens=tokens))
        if attempt_id in self.live or attempt_id in self.charged:
            assert outcome.error is None
            held = self.live.pop(attempt_id, None)
            self.charged.pop(attempt_id, None)
            self.spent[attempt_id] = tokens * 1_000
            assert outcome.above_hold == (tokens * 1_000 > self.books.books.holds[attempt_id].held_nano_usd)
            self.unbounded |= outcome.above_hold or held is None
        elif attempt_id in self.spent:
            assert (outcome.error is None) == (self.spent[attempt_id] == tokens * 1_000)

    @rule(attempt_id=ids)
    def release(self, attempt_id: str) -> None:
        outcome = self.books.ledger().release(attempt_id)
        assert (outcome.error is None) == (attempt_id not in self.spent)
        self.live.pop(attempt_id, None)
        self.charged.pop(attempt_id, None)

    @rule(attempt_id=ids)
    def resolve(self, attempt_id: str) -> None:
        resolution = self.books.ledger().resolve(attempt_id)
        known: dict[str, Callable[[], int]] = {
            "held": lambda: self.live[attempt_id],
            "expired_charged": lambda: self.charged[attempt_id],
            "settled": lambda: self.spent[attempt_id],
        }
        assert resolution.cost.nano_usd == known.get(resolution.state.value, lambda: 0)()

    @rule()
    def an_hour_passes_and_holds_expire(self) -> None:
        self.books.now_us = min(self.books.now_us + HOUR_US, NOVEMBER_US + 24 * HOUR_US)
        ledger = self.books.ledger()
        for attempt_id in list(self.live):
            if ledger.expire(attempt_id, ExpiryPolicy.CHARGE):
                self.charged[attempt_id] = self.live.pop(attempt_id)

    @rule(event=st.integers(0, 3))
    def report(self, event: int) -> None:
        outcome = self.books.ledger().report([report(f"e{event}", tokens=event)])
        assert outcome.duplicates == (f"e{event}" in self.spent)
        self.spent[f"e{event}"] = event * 1_000
        self.unbounded = True

    @invariant()
    def balances_are_the_sums_of_their_records(self) -> None:
        for balance in self.books.books.standings:
            assert balance.held_nano_usd == sum(self.live.values())
            assert balance.settled_nano_usd == sum(self.charged.values()) + sum(self.spent.values())
        assert self.books.books.held_nano_usd == sum(self.live.values())

    @invariant()
    def no_budget_is_overspent_by_held_calls(self) -> None:
        for balance in self.books.books.standings:
            used = balance.settled_nano_usd + balance.held_nano_usd
            assert self.unbounded or used <= balance.budget.limit_nano_usd


HoldsAndBudgets.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHoldsAndBudgets = HoldsAndBudgets.TestCase
