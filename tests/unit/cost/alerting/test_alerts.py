"""Which thresholds a change crosses, and what an alert says."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.cost.alerting.alerts import (
    Alert,
    AlertDraft,
    AlertKind,
    AnomalyFacts,
    anomaly,
    crossed,
    payload_of,
    reached,
    refused,
    unpriced,
)
from services.cost.budgets import Balance
from tests.support.cost import NOVEMBER_US, USD, LedgerOfBooks, budget, order, report, settlement

AMOUNTS = st.integers(0, 10**15)
PERCENTS = st.lists(st.integers(1, 1_000), max_size=10, unique=True).map(lambda some: tuple(sorted(some)))


def kinds(drafts: list[AlertDraft]) -> list[tuple[AlertKind, int]]:
    return [(draft.kind, draft.threshold_percent) for draft in drafts]


def on_record(draft: AlertDraft) -> Alert:
    return Alert("alr_1", 7, NOVEMBER_US, draft)


@given(PERCENTS, st.integers(1, 10**15), st.lists(AMOUNTS, min_size=1, max_size=20))
def test_a_rising_amount_crosses_each_threshold_once(thresholds: tuple[int, ...], limit: int, steps: list[int]) -> None:
    rising = sorted(steps)
    seen = crossed(thresholds, limit, None, rising[0])
    for before, after in pairwise(rising):
        seen += crossed(thresholds, limit, before, after)
    assert seen == [percent for percent in thresholds if rising[-1] * 100 >= percent * limit]


def test_a_threshold_is_reached_exactly_at_its_part_of_the_limit() -> None:
    assert crossed((50,), 3, 0, 1) == []
    assert crossed((50,), 3, 1, 2) == [50]
    assert crossed((50, 100), 10**15, 0, 10**15 // 2) == [50]
    assert crossed((150,), 10, 14, 15) == [150]
    assert crossed((50,), 10, 5, 9) == []
    assert crossed((50,), 10, 9, 3) == []


def test_a_balance_that_did_not_rise_reaches_nothing() -> None:
    balance = Balance(budget(1_000), budget(1_000).period_at(NOVEMBER_US), settled_nano_usd=900)
    assert reached(balance, 900) == []
    assert reached(balance, 950) == []
    assert kinds(reached(balance, 600)) == [(AlertKind.BUDGET_THRESHOLD, 80)]
    assert kinds(reached(balance, None)) == [(AlertKind.BUDGET_THRESHOLD, 50), (AlertKind.BUDGET_THRESHOLD, 80)]


def test_a_transaction_tells_what_it_crossed_refused_and_could_not_price() -> None:
    books = LedgerOfBooks(budget(1_000_000))
    ledger = books.ledger()
    ledger.hold(order("a", tokens=900))
    ledger.settle(settlement("a", tokens=600))
    refusal = ledger.hold(order("b", tokens=500)).error
    ledger.hold(order("c", model="unheard"))
    ledger.report([report("e", model="unseen")])
    assert refusal is not None
    told = ledger.alerts()
    assert kinds(told) == [
        (AlertKind.BUDGET_THRESHOLD, 50),
        (AlertKind.BUDGET_EXHAUSTED, 0),
        (AlertKind.UNPRICED_MODEL, 0),
        (AlertKind.UNPRICED_MODEL, 0),
    ]
    assert {draft.subject for draft in told} == {"bud_1", "acme/unheard", "acme/unseen"}
    assert {draft.period for draft in told} == {"2026-11", "2026-11-18"}
    assert books.ledger().alerts() == []


def test_what_falls_within_a_transaction_is_judged_by_its_end() -> None:
    ledger = LedgerOfBooks(budget(1_000_000)).ledger()
    ledger.hold(order("a", tokens=900))
    ledger.settle(settlement("a", tokens=None))
    assert ledger.alerts() == []


def test_a_message_says_what_happened_in_dollars() -> None:
    balance = Balance(budget(2 * USD), budget(2 * USD).period_at(NOVEMBER_US), USD, USD // 2)
    threshold, exhausted = on_record(reached(balance, 0)[0]), on_record(refused(balance, USD))
    assert threshold.message() == "Budget 'monthly' (bud_1) has reached 50 %: 1 USD of 2 USD in 2026-11 are spent."
    assert exhausted.message() == (
        "Budget 'monthly' (bud_1) refused a call that needed up to 1 USD: 1 USD of 2 USD in 2026-11 are spent and "
        "0.5 USD held."
    )
    assert "acme/new has no price" in on_record(unpriced("acme/new", NOVEMBER_US)).message()
    odd = on_record(anomaly("total", AnomalyFacts(NOVEMBER_US, 5 * USD, 2 * USD, USD, 3 * USD)))
    assert "Spending of total was 5 USD at 2026-11-18T11:06:40Z; expected was 2 USD" in odd.message()


def test_a_payload_has_type_time_and_the_facts_of_its_kind() -> None:
    balance = Balance(budget(1_000), budget(1_000).period_at(NOVEMBER_US), settled_nano_usd=500)
    payload = payload_of(on_record(reached(balance, 0)[0]))
    assert (payload["type"], payload["timestamp"]) == ("alert.budget_threshold", "2026-11-18T11:06:40Z")
    data = payload["data"]
    assert isinstance(data, dict)
    assert (data["sequence"], data["budget_id"], data["threshold_percent"]) == (7, "bud_1", 50)
    assert payload_of(on_record(unpriced("a/b", NOVEMBER_US)))["type"] == "alert.unpriced_model"
    odd = payload_of(on_record(anomaly("total", AnomalyFacts(0, 1, 2, 3, 4))))
    assert odd["type"] == "alert.anomaly"
