"""Money around an attempt: held before, settled or released after, whatever happens."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.gateway.accounting import Accounting, AccountingLimits
from services.gateway.attempts import Attempt, Cost
from services.gateway.calls import Owner
from services.gateway.chunks import UsageSoFar
from services.gateway.cost_port import Reservation, Settlement
from services.gateway.failures import CallFailed, Failure
from services.gateway.hold_policy import HoldPolicy
from services.gateway.late_bills import Bill, LateBills
from services.gateway.usage import TokenUsage
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.errors import DomainError, Unavailable, error_of_code
from tests.support.gateway import OWNER, InMemoryLedger, MemoryJournal, attempt_of, call, with_parameters

DOWN = Unavailable("DEPENDENCY_UNAVAILABLE", "cost is not there")
LIMITS = AccountingLimits(hold_wait_s=0.2, later_s=5.0, later_max=2, retry_base_s=0.001, retry_max_s=0.01)


def attempt(timeout_s: float = 5.0) -> Attempt:
    return attempt_of(call(run_id="run_1", tags={"feature": "search"}), timeout_s=timeout_s)


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def late_bills(ledger: InMemoryLedger, journal: MemoryJournal) -> LateBills:
    return LateBills(journal, ledger, pause_s=0.001)


def accounting_of(
    ledger: InMemoryLedger, late_bills: LateBills, *, fail_open: bool = True, gather_s: float = 0.0
) -> Accounting:
    policy = HoldPolicy(ledger, SYSTEM_CLOCK, fail_open=fail_open)
    return Accounting(ledger, policy, late_bills, SYSTEM_CLOCK, replace(LIMITS, gather_s=gather_s))


@pytest.fixture
def accounting(ledger: InMemoryLedger, late_bills: LateBills) -> Accounting:
    return accounting_of(ledger, late_bills)


async def run(accounting: Accounting, tried: Attempt, *, dispatch: bool = True) -> None:
    async with accounting.held(tried):
        tried.dispatched = dispatch
        if dispatch:
            tried.stopwatch.leave()
            tried.usage = TokenUsage(10, output_tokens=5)


async def test_the_worst_case_is_held_and_the_usage_settled(accounting: Accounting, ledger: InMemoryLedger) -> None:
    tried = attempt()
    await run(accounting, tried)
    held = ledger.holds[tried.attempt_id]
    assert (held.nonce, held.provider, held.model, held.run_id) == ("nonce", "scripted", "model", "run_1")
    assert held.output_tokens_max == 100
    assert held.input_tokens_max >= 10
    assert held.tags == (("feature", "search"),)
    assert held.expires_in_ms > 30_000
    settled = ledger.settled[tried.attempt_id]
    assert (settled.usage, settled.succeeded) == (TokenUsage(10, output_tokens=5), True)
    assert settled.occurred_at_us == tried.stopwatch.started_at_us
    assert tried.cost is not None
    assert tried.cost.cost_nano_usd == 15
    assert ledger.owners == {OWNER}


async def test_the_tier_that_is_asked_for_is_held_and_the_one_that_answered_settled(
    accounting: Accounting, ledger: InMemoryLedger
) -> None:
    tried = attempt_of(with_parameters(provider_options={"service_tier": "priority"}))
    tried.collector.add([UsageSoFar(TokenUsage(10), "default")])
    await run(accounting, tried)
    assert ledger.holds[tried.attempt_id].service_tier == "priority"
    assert ledger.settled[tried.attempt_id].service_tier == "default"


async def test_an_answer_that_says_no_cost_goes_before_its_settlement(
    accounting: Accounting, ledger: InMemoryLedger
) -> None:
    tried = attempt_of(call(waits_for_cost=False))
    await run(accounting, tried)
    assert tried.cost is None
    assert ledger.settled == {}
    await accounting.close(5.0)
    assert ledger.settled.keys() == {tried.attempt_id}


class ObservedLedger(InMemoryLedger):
    """Says when something has been settled."""

    def __init__(self) -> None:
        super().__init__()
        self.has_settled = asyncio.Event()

    async def settle(self, owner: Owner, settlement: Settlement) -> Cost:
        cost = await super().settle(owner, settlement)
        self.has_settled.set()
        return cost


async def test_settlements_that_nobody_waits_for_leave_together(journal: MemoryJournal) -> None:
    ledger = ObservedLedger()
    accounting = accounting_of(ledger, LateBills(journal, ledger), gather_s=0.01)
    first, second = [attempt_of(call(call_id=name, waits_for_cost=False)) for name in ("first", "second")]
    await run(accounting, first)
    await run(accounting, second)
    await ledger.has_settled.wait()
    # In the same turn of the loop, so that they share an RPC.
    assert ledger.settled.keys() == {first.attempt_id, second.attempt_id}


async def test_a_gateway_that_stops_gathers_no_longer(ledger: InMemoryLedger, late_bills: LateBills) -> None:
    accounting = accounting_of(ledger, late_bills, gather_s=3_600.0)
    tried = attempt_of(call(waits_for_cost=False))
    await run(accounting, tried)
    for _ in range(20):
        await asyncio.sleep(0)
    assert ledger.settled == {}
    await accounting.close(5.0)
    assert ledger.settled.keys() == {tried.attempt_id}


async def test_a_failure_and_a_crowd_are_settled_first(accounting: Accounting, ledger: InMemoryLedger) -> None:
    failed = attempt_of(call(call_id="failed", waits_for_cost=False))
    failed.failure = Failure("PROVIDER_ERROR", "no", dispatched=True)
    await run(accounting, failed)
    assert ledger.settled.keys() == {"failed/1"}
    crowd = [attempt_of(call(call_id=f"{number}", waits_for_cost=False)) for number in range(LIMITS.later_max + 1)]
    for tried in crowd:
        # In one turn of the loop: no settlement can end in between.
        await run(accounting, tried)
    assert [tried.cost is not None for tried in crowd] == [False, False, True]
    await accounting.close(5.0)
    assert len(ledger.settled) == 4


async def test_what_was_not_sent_is_released(accounting: Accounting, ledger: InMemoryLedger) -> None:
    tried = attempt()
    await run(accounting, tried, dispatch=False)
    assert ledger.released == [tried.attempt_id]
    assert ledger.open_holds == set()


async def test_a_failed_attempt_is_settled_as_failed(accounting: Accounting, ledger: InMemoryLedger) -> None:
    tried = attempt()

    async def fail() -> None:
        async with accounting.held(tried):
            tried.dispatched = True
            tried.failure = Failure("PROVIDER_ERROR", "no", dispatched=True)
            raise CallFailed(tried.failure)

    with pytest.raises(CallFailed):
        await fail()
    settled = ledger.settled[tried.attempt_id]
    assert (settled.usage, settled.succeeded) == (None, False)


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (error_of_code("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED", "used up"), "BUDGET_EXCEEDED"),
        (error_of_code("FAILED_PRECONDITION", "UNPRICED", "no price"), "UNPRICED"),
        (error_of_code("FAILED_PRECONDITION", "HOLD_TOMBSTONED", "given up"), "HOLD_TOMBSTONED"),
        (error_of_code("ALREADY_EXISTS", "HOLD_NONCE_MISMATCH", "other nonce"), "CALL_ALREADY_DISPATCHED"),
    ],
)
async def test_a_refused_hold_sends_nothing(
    accounting: Accounting, ledger: InMemoryLedger, refusal: DomainError, reason: str
) -> None:
    ledger.failures = [refusal]
    tried = attempt()
    with pytest.raises(CallFailed) as failed:
        await run(accounting, tried)
    assert (failed.value.failure.reason, failed.value.failure.dispatched) == (reason, False)
    assert not tried.dispatched
    assert ledger.calls == 1


async def test_a_hold_whose_answer_was_lost_is_asked_for_again(accounting: Accounting, ledger: InMemoryLedger) -> None:
    # The cost service died after its commit: the same nonce is a repeat.
    ledger.after = [DOWN]
    tried = attempt()
    await run(accounting, tried)
    assert ledger.settled.keys() == {tried.attempt_id}


async def test_no_hold_in_time_means_nothing_is_sent_and_the_hold_is_given_back(
    accounting: Accounting, ledger: InMemoryLedger
) -> None:
    ledger.after = [DOWN] * 1_000
    tried = attempt(timeout_s=0.05)
    with pytest.raises(CallFailed) as failed:
        await run(accounting, tried)
    assert (failed.value.failure.reason, failed.value.failure.dispatched) == ("DEPENDENCY_UNAVAILABLE", False)
    ledger.after = []
    await accounting.close(5.0)
    assert ledger.open_holds == set()


async def test_a_lost_settlement_does_not_hold_the_answer_back_and_is_made_up_for(
    accounting: Accounting, ledger: InMemoryLedger, late_bills: LateBills, journal: MemoryJournal
) -> None:
    tried = attempt()

    async def settle_while_cost_is_down() -> None:
        async with accounting.held(tried):
            tried.dispatched = True
            ledger.failures = [DOWN, DOWN, DOWN]

    await settle_while_cost_is_down()
    assert tried.cost is None
    await late_bills.close(5.0)
    assert journal.bills == {}
    assert ledger.settled.keys() == {tried.attempt_id}


async def test_what_the_journal_does_not_take_waits_in_memory_and_is_bounded(
    accounting: Accounting, ledger: InMemoryLedger, late_bills: LateBills, journal: MemoryJournal
) -> None:
    journal.max_bills = 0

    async def one(number: int) -> None:
        tried = attempt()
        tried.attempt_id = f"call/{number}"
        async with accounting.held(tried):
            tried.dispatched = True
            ledger.failures = [DOWN]

    for number in range(LIMITS.later_max + 1):
        await one(number)
        # The next hold must not take the failure that is meant for the settlement in the background.
        ledger.failures = []
    await accounting.close(5.0)
    assert len(ledger.open_holds) == 1


async def test_a_caller_who_leaves_during_the_hold_leaves_no_hold(ledger: InMemoryLedger) -> None:
    reached = asyncio.Event()

    class SlowLedger(InMemoryLedger):
        async def hold(self, owner: object, reservation: object) -> None:
            reached.set()
            await asyncio.Event().wait()

    slow = SlowLedger()
    accounting = accounting_of(slow, LateBills(MemoryJournal(), slow))
    tried = attempt()
    task = asyncio.create_task(run(accounting, tried))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await accounting.close(5.0)
    assert slow.released == [tried.attempt_id]


def direct(call_id: str = "call") -> Attempt:
    return attempt_of(call(call_id=call_id))


async def known(accounting: Accounting, ledger: InMemoryLedger, *, hard_budget: bool) -> None:
    """Let the layer learn whether the project has a hard budget."""
    ledger.hard_budget = hard_budget
    await run(accounting, direct("before"))
    await asyncio.sleep(0)


async def test_without_a_hard_budget_a_call_goes_on_without_a_hold_and_is_billed_once(
    accounting: Accounting, ledger: InMemoryLedger, late_bills: LateBills, journal: MemoryJournal
) -> None:
    await known(accounting, ledger, hard_budget=False)
    ledger.failures = [DOWN]
    tried = direct()
    await run(accounting, tried)
    assert (tried.cost, list(journal.bills)) == (None, ["call/1"])
    ledger.after = [DOWN, DOWN, DOWN]  # answers that get lost: the hold and the settlement are repeated
    await late_bills.close(5.0)
    assert ledger.holds["call/1"].nonce == "nonce"
    assert ledger.settled["call/1"].usage == TokenUsage(10, output_tokens=5)
    assert (ledger.open_holds, ledger.recorded, journal.bills) == (set(), {}, {})


async def test_while_the_cost_service_is_away_it_is_not_asked_by_every_call(
    accounting: Accounting, ledger: InMemoryLedger
) -> None:
    await known(accounting, ledger, hard_budget=False)
    ledger.failures = [DOWN] * 1_000
    await run(accounting, direct("first"))
    asked = ledger.calls
    tried = direct("second")
    async with accounting.held(tried):
        assert ledger.calls == asked


@pytest.mark.parametrize(
    ("tried", "hard_budget"),
    [(direct(), True), (attempt_of(call(call_id="call", run_id="run_1")), False)],
    ids=["hard budget", "run"],
)
async def test_under_a_hard_budget_and_for_runs_nothing_leaves_without_a_hold(
    accounting: Accounting, ledger: InMemoryLedger, tried: Attempt, hard_budget: bool
) -> None:
    await known(accounting, ledger, hard_budget=hard_budget)
    ledger.failures = [DOWN] * 1_000
    with pytest.raises(CallFailed) as failed:
        await run(accounting, tried)
    assert failed.value.failure.reason == "DEPENDENCY_UNAVAILABLE"
    assert not tried.dispatched


async def test_of_an_unknown_project_and_with_the_policy_off_nothing_leaves_without_a_hold(
    ledger: InMemoryLedger, late_bills: LateBills
) -> None:
    unknown = accounting_of(ledger, late_bills)
    off = accounting_of(ledger, late_bills, fail_open=False)
    await known(off, ledger, hard_budget=False)
    ledger.failures = [DOWN] * 1_000
    for accounting in (unknown, off):
        with pytest.raises(CallFailed):
            await run(accounting, direct())


async def test_nothing_leaves_without_a_hold_when_no_more_bills_are_kept(
    accounting: Accounting, ledger: InMemoryLedger, journal: MemoryJournal
) -> None:
    await known(accounting, ledger, hard_budget=False)
    journal.max_bills = 1
    ledger.failures = [DOWN] * 1_000
    await run(accounting, direct("kept"))
    await run(accounting, direct("in memory"))
    with pytest.raises(CallFailed):
        await run(accounting, direct("refused"))


async def test_what_no_hold_is_given_for_any_more_is_recorded(ledger: InMemoryLedger, late_bills: LateBills) -> None:
    accounting = accounting_of(ledger, late_bills)
    await known(accounting, ledger, hard_budget=False)
    ledger.failures = [DOWN]
    await run(accounting, direct())
    ledger.failures = [error_of_code("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED", "a budget made meanwhile")]
    await late_bills.close(5.0)
    assert ledger.recorded["call/1"].usage == TokenUsage(10, output_tokens=5)
    assert "call/1" not in ledger.settled


async def test_a_kept_bill_that_cannot_be_read_keeps_no_other(
    late_bills: LateBills, journal: MemoryJournal, ledger: InMemoryLedger
) -> None:
    await journal.add("torn", b"{")
    owed = Settlement("run_1/1/1/1", TokenUsage(10, output_tokens=5), "model", 1, succeeded=True)
    unheld = Reservation("run_1/1/1/1", "nonce", "scripted", "model", 100, 100, "run_1", (), 60_000)
    await late_bills.add(Bill(OWNER, owed, unheld))
    await late_bills.close(0.5)  # the torn one stays, so all of it is used
    assert list(ledger.settled) == ["run_1/1/1/1"]
    assert [attempt_id for attempt_id, _ in await journal.oldest(10)] == ["torn"]
