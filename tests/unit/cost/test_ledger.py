import pytest

from services.cost.holds import ExpiryPolicy, HoldState
from services.cost.ledger import AHEAD_MAX_US, LATE_MAX_US
from services.cost.periods import PeriodKind
from services.cost.scopes import Scope
from services.cost.usage import NO_USAGE, Attribution, Usage
from services.runtime.errors import AlreadyExists, InvalidField
from tests.support.cost import HOUR_US, NOVEMBER_US, LedgerOfBooks, budget, order, report, settlement, worst_case_of

DECEMBER_US = NOVEMBER_US + 14 * 24 * HOUR_US


def reason_of(outcome: object) -> str | None:
    error = getattr(outcome, "error", None)
    return None if error is None else error.reason


@pytest.fixture
def held() -> LedgerOfBooks:
    """One attempt "a" of 100 tokens is held under a budget of 1,000,000 nano-USD."""
    books = LedgerOfBooks(budget(1_000_000))
    assert books.ledger().hold(order("a")).error is None
    return books


def test_a_hold_reserves_its_worst_case_and_a_settlement_charges_what_was_used(held: LedgerOfBooks) -> None:
    assert held.amounts() == (0, worst_case_of(100))
    outcome = held.ledger().settle(settlement("a", tokens=40))
    assert outcome.error is None
    assert outcome.cost is not None
    assert (outcome.cost.nano_usd, outcome.cost.price_version, outcome.above_hold) == (40_000, "test-1", False)
    assert held.amounts() == (40_000, 0)
    assert held.books.held_nano_usd == 0


def test_the_same_nonce_repeats_and_another_is_refused(held: LedgerOfBooks) -> None:
    again = held.ledger().hold(order("a", tokens=999))
    assert (again.error, again.held_nano_usd, again.priced) == (None, worst_case_of(100), True)
    assert reason_of(held.ledger().hold(order("a", nonce="n2"))) == "HOLD_NONCE_MISMATCH"
    assert held.amounts() == (0, worst_case_of(100))


def test_a_resolved_hold_is_never_held_again(held: LedgerOfBooks) -> None:
    held.ledger().settle(settlement("a"))
    assert reason_of(held.ledger().hold(order("a"))) == "HOLD_RESOLVED"
    assert reason_of(held.ledger().hold(order("a", nonce="n2"))) == "HOLD_NONCE_MISMATCH"


def test_settling_twice_is_settling_once_unless_the_payload_differs(held: LedgerOfBooks) -> None:
    first = held.ledger().settle(settlement("a", tokens=40))
    assert held.ledger().settle(settlement("a", tokens=40)) == first
    assert reason_of(held.ledger().settle(settlement("a", tokens=41))) == "HOLD_RESOLVED"
    assert held.amounts() == (40_000, 0)


def test_a_cost_above_the_hold_is_recorded_in_full_and_flagged(held: LedgerOfBooks) -> None:
    outcome = held.ledger().settle(settlement("a", tokens=5_000))
    assert outcome.above_hold
    assert held.amounts() == (5_000_000, 0)
    assert reason_of(held.ledger().hold(order("b", tokens=1))) == "BUDGET_EXCEEDED"
    assert held.ledger().hold(order("c", model="free")).error is None


def test_the_refusal_names_the_budget_what_is_left_and_the_reset(held: LedgerOfBooks) -> None:
    outcome = held.ledger().hold(order("b", tokens=900))
    assert outcome.error is not None
    assert outcome.error.reason == "BUDGET_EXCEEDED"
    assert (
        "'monthly' (bud_1) for the whole project has 0.000899996 USD left of 0.001 USD for 2026-11"
        in outcome.error.message
    )
    assert outcome.error.metadata["remaining_nano_usd"] == "899996"
    assert outcome.error.metadata["resets_at"] == "2026-12-01T00:00:00Z"
    assert held.amounts() == (0, worst_case_of(100))


def test_a_hold_takes_from_every_budget_or_from_none() -> None:
    books = LedgerOfBooks(budget(10**9, budget_id="bud_1"), budget(150_000, budget_id="bud_2"))
    assert books.ledger().hold(order("a")).error is None
    refused = books.ledger().hold(order("b"))
    assert refused.error is not None
    assert refused.error.metadata["budget_id"] == "bud_2"
    assert books.amounts() == books.amounts("bud_2") == (0, worst_case_of(100))


def test_an_unpriced_model_is_refused_under_a_budget_and_recorded_without_one(held: LedgerOfBooks) -> None:
    refused = held.ledger().hold(order("b", model="secret"))
    assert reason_of(refused) == "UNPRICED"
    free = LedgerOfBooks()
    outcome = free.ledger().hold(order("b", model="secret"))
    assert (outcome.error, outcome.held_nano_usd, outcome.priced) == (None, 0, False)
    settled = free.ledger().settle(settlement("b"))
    assert settled.cost is not None
    assert not settled.cost.priced


def test_the_model_that_answered_sets_the_price_where_it_has_one(held: LedgerOfBooks) -> None:
    held.ledger().hold(order("b"))
    as_held = held.ledger().settle(settlement("a", provider_model="flat-2026-11-01"))
    answered = held.ledger().settle(settlement("b", provider_model="free"))
    assert as_held.cost is not None
    assert answered.cost is not None
    assert (as_held.cost.nano_usd, answered.cost.nano_usd) == (100_000, 0)


def test_a_call_that_took_nothing_costs_nothing(held: LedgerOfBooks) -> None:
    outcome = held.ledger().settle(settlement("a", tokens=None))
    assert outcome.cost is not None
    assert (outcome.cost.nano_usd, outcome.cost.priced) == (0, True)
    assert held.books.events["gateway", "a"].usage == NO_USAGE


def test_a_release_gives_the_money_back_once(held: LedgerOfBooks) -> None:
    assert held.ledger().release("a").error is None
    assert held.ledger().release("a").error is None
    assert held.amounts() == (0, 0)
    assert reason_of(held.ledger().settle(settlement("a"))) == "HOLD_RESOLVED"


def test_a_settled_attempt_cannot_be_released(held: LedgerOfBooks) -> None:
    held.ledger().settle(settlement("a"))
    assert reason_of(held.ledger().release("a")) == "HOLD_RESOLVED"


@pytest.mark.parametrize("give_up", ["resolve", "release"])
def test_an_id_that_was_given_up_refuses_its_late_hold(give_up: str) -> None:
    books = LedgerOfBooks(budget(1_000_000))
    getattr(books.ledger(), give_up)("late")
    assert reason_of(books.ledger().hold(order("late"))) == "HOLD_TOMBSTONED"
    assert reason_of(books.ledger().settle(settlement("late"))) == "HOLD_TOMBSTONED"
    assert books.ledger().resolve("late").state is HoldState.TOMBSTONED
    assert books.ledger().release("late").error is None


def test_a_settlement_without_a_hold_is_not_found() -> None:
    assert reason_of(LedgerOfBooks().ledger().settle(settlement("ghost"))) == "NOT_FOUND"


def test_resolve_tells_what_each_attempt_costs(held: LedgerOfBooks) -> None:
    for attempt_id in ("settled", "released"):
        held.ledger().hold(order(attempt_id))
    held.ledger().settle(settlement("settled", tokens=7))
    held.ledger().release("released")
    known = {name: held.ledger().resolve(name) for name in ("a", "settled", "released")}
    assert {name: (one.state.value, one.cost.nano_usd) for name, one in known.items()} == {
        "a": ("held", worst_case_of(100)),
        "settled": ("settled", 7_000),
        "released": ("released", 0),
    }
    assert known["settled"].usage == Usage(output_tokens=7)


@pytest.mark.parametrize(("policy", "charged"), [(ExpiryPolicy.CHARGE, worst_case_of(100)), (ExpiryPolicy.RELEASE, 0)])
def test_an_expired_hold_counts_by_policy_until_its_outcome_corrects_it(
    held: LedgerOfBooks, policy: ExpiryPolicy, charged: int
) -> None:
    assert not held.ledger().expire("a", policy)
    held.now_us += 60_000_000
    assert held.ledger().expire("a", policy)
    assert not held.ledger().expire("a", policy)
    assert held.amounts() == (charged, 0)
    assert held.books.held_nano_usd == 0
    assert held.ledger().resolve("a").cost.nano_usd == charged
    assert reason_of(held.ledger().hold(order("a"))) == "HOLD_RESOLVED"
    assert held.ledger().settle(settlement("a", tokens=30)).error is None
    assert held.amounts() == (30_000, 0)


def test_an_expired_hold_can_still_be_released(held: LedgerOfBooks) -> None:
    held.now_us += 60_000_000
    held.ledger().expire("a", ExpiryPolicy.CHARGE)
    assert held.ledger().release("a").error is None
    assert held.amounts() == (0, 0)


def test_a_call_that_spans_the_turn_of_the_month_is_charged_where_it_was_held(held: LedgerOfBooks) -> None:
    held.now_us = DECEMBER_US
    held.ledger().hold(order("b", tokens=7))
    held.ledger().settle(settlement("a", occurred_us=DECEMBER_US))
    assert held.amounts() == (100_000, 0)
    assert held.amounts(period="2026-12") == (0, worst_case_of(7))


def test_only_budgets_whose_scope_matches_are_asked_and_charged() -> None:
    of_run = budget(50_000, budget_id="bud_1", scope=Scope(run_id="run_1"), kind=PeriodKind.TOTAL)
    of_both = budget(10**6, budget_id="bud_2", scope=Scope(user_id="usr_1", tag="team=research"))
    books = LedgerOfBooks(of_run, of_both)
    mine = Attribution("usr_1", "key_1", "run_2", (("stage", "test"), ("team", "research")))
    assert reason_of(books.ledger().hold(order("a", attribution=Attribution(run_id="run_1")))) == "BUDGET_EXCEEDED"
    assert books.ledger().hold(order("b", attribution=mine)).error is None
    assert books.ledger().hold(order("c", attribution=Attribution("usr_1"))).error is None
    assert books.amounts("bud_1", "total") == (0, 0)
    assert books.amounts("bud_2") == (0, worst_case_of(100))


def test_a_soft_budget_refuses_neither_money_nor_an_unpriced_model() -> None:
    books = LedgerOfBooks(budget(10, soft=True))
    assert books.ledger().hold(order("a")).error is None
    assert books.ledger().hold(order("b", model="secret")).error is None
    assert books.amounts() == (0, worst_case_of(100))


def test_an_unpriced_model_is_refused_only_where_a_hard_budget_matches() -> None:
    books = LedgerOfBooks(budget(10**6, scope=Scope(model="acme/secret")))
    assert reason_of(books.ledger().hold(order("a", model="secret"))) == "UNPRICED"
    assert books.ledger().hold(order("b", model="unknown")).error is None


def test_a_budget_without_a_reset_says_so_in_its_refusal() -> None:
    books = LedgerOfBooks(budget(10, scope=Scope(run_id="run_1"), kind=PeriodKind.TOTAL))
    error = books.ledger().hold(order("a", attribution=Attribution(run_id="run_1"))).error
    assert error is not None
    assert error.metadata["resets_at"] == ""
    assert "for run run_1 has 0.00000001 USD left of 0.00000001 USD for total" in error.message
    assert error.message.endswith("lower the call's output limit.")


@pytest.mark.parametrize("shift_us", [-LATE_MAX_US - 1, AHEAD_MAX_US + 1])
def test_times_far_off_are_refused(held: LedgerOfBooks, shift_us: int) -> None:
    assert reason_of(held.ledger().settle(settlement("a", occurred_us=NOVEMBER_US + shift_us))) == "INVALID_FIELD"
    with pytest.raises(InvalidField) as refused:
        held.ledger().report([report("e1", occurred_us=NOVEMBER_US + shift_us)])
    assert refused.value.field == "events[0].occurred_at"


def test_impossible_usage_settles_nothing(held: LedgerOfBooks) -> None:
    wrong = settlement("a", tokens=-1)
    assert reason_of(held.ledger().settle(wrong)) == "INVALID_FIELD"
    assert held.ledger().resolve("a").state is HoldState.HELD


def test_reports_are_recorded_once_and_charge_the_periods_that_a_budget_has_seen(held: LedgerOfBooks) -> None:
    late_us = NOVEMBER_US - 3 * HOUR_US
    before_us = NOVEMBER_US - 30 * 24 * HOUR_US
    reports = [report("e1"), report("e2", occurred_us=late_us), report("e1"), report("e3", occurred_us=before_us)]
    outcome = held.ledger().report(reports)
    assert (outcome.duplicates, [cost.nano_usd for cost in outcome.costs]) == (1, [100_000] * 4)
    assert held.ledger().report(reports).duplicates == 4
    assert held.amounts() == (200_000, worst_case_of(100))
    assert [balance.period.key for balance in held.books.standings] == ["2026-11"]


def test_a_report_under_a_used_id_records_nothing_of_its_request(held: LedgerOfBooks) -> None:
    held.ledger().report([report("e1")])
    with pytest.raises(AlreadyExists) as refused:
        held.ledger().report([report("e2"), report("e1", tokens=5)])
    assert refused.value.reason == "USAGE_EVENT_MISMATCH"
    assert ("app", "e2") not in held.books.events


def test_nobody_reports_under_the_source_of_settlements(held: LedgerOfBooks) -> None:
    with pytest.raises(InvalidField) as refused:
        held.ledger().report([report("e1", source="gateway")])
    assert refused.value.field == "events[0].source"


def test_a_hold_made_and_resolved_in_one_transaction_is_written_once_in_its_last_state() -> None:
    books = LedgerOfBooks(budget(1_000_000))
    ledger = books.ledger()
    ledger.hold(order("a"))
    ledger.settle(settlement("a"))
    assert [hold.state for hold in ledger.new_holds.values()] == [HoldState.SETTLED]
    assert ledger.changed_holds == {}
