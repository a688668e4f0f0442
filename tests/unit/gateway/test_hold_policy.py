"""How long what is known of a project's budgets lets its calls leave without a hold."""

from __future__ import annotations

import asyncio

from services.gateway.hold_policy import HoldPolicy
from services.runtime.clock import ManualClock
from services.runtime.errors import error_of_code
from tests.support.gateway import OWNER, InMemoryLedger, attempt_of, call


class Unreadable(InMemoryLedger):
    """A ledger whose budgets cannot be read any more."""

    async def has_hard_budget(self, owner: object) -> bool:
        raise error_of_code("UNAVAILABLE", "", "down")


async def test_what_was_learnt_is_believed_for_a_time_and_no_longer() -> None:
    clock, ledger = ManualClock(), InMemoryLedger(hard_budget=False)
    policy = HoldPolicy(ledger, clock, fail_open=True, known_for_s=900.0)
    tried = attempt_of(call())
    assert not policy.may_go_on(tried)
    policy.answered(OWNER)
    await asyncio.sleep(0)
    assert policy.may_go_on(tried)
    clock.advance(900)
    assert policy.may_go_on(tried)
    clock.advance(0.1)
    assert not policy.may_go_on(tried)
    # Learnt anew; a failed question changes nothing.
    policy.answered(OWNER)
    await asyncio.sleep(0)
    assert policy.may_go_on(tried)
    policy._cost = Unreadable()
    clock.advance(60)
    policy.answered(OWNER)
    await asyncio.sleep(0)
    assert policy.may_go_on(tried)
    clock.advance(841)
    assert not policy.may_go_on(tried)
    await policy.close()
