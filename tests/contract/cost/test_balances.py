"""Random stories on both databases: every balance is what its records say, whatever budgets and calls go through."""

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from services.cost.budgets import Budget
from services.cost.holds import ExpiryPolicy
from services.cost.periods import PeriodKind
from services.cost.rollups import DAY_US
from services.cost.scopes import Scope, Target
from services.cost.usage import Attribution
from services.runtime.errors import AlreadyExists, ResourceExhausted
from tests.support.cost import NOVEMBER_US, budget, order, report, settlement, worst_case_of
from tests.support.cost_store import PROJECT, Cost

SCOPES = [Scope(), Scope("usr_1"), Scope(tag="team=a"), Scope(run_id="run_1"), Scope("usr_2", model="acme/flat")]
PEOPLE = [Attribution(f"usr_{user}", "key_1", f"run_{user}", (("team", team),)) for user in (1, 2) for team in "ab"]
STEPS = 300


@dataclass
class Charge:
    """What a call or a report counts for now, and when."""

    target: Target
    at_us: int
    held: int = 0
    settled: int = 0
    live: bool = False


@dataclass
class Story:
    """The records, kept in the simplest way that can be right."""

    cost: Cost
    chance: random.Random
    charges: dict[str, Charge] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)

    def used(self, one: Budget, at_us: int) -> tuple[int, int]:
        """Settled and held of a budget in the period that holds a time."""
        key = one.period_at(at_us).key
        mine = [
            charge
            for charge in self.charges.values()
            if one.scope.matches(charge.target) and one.period_at(charge.at_us).key == key
        ]
        return sum(charge.settled for charge in mine), sum(charge.held for charge in mine)

    async def hold(self, name: str) -> None:
        tokens, person = self.chance.randrange(200), self.chance.choice(PEOPLE)
        target, amount, now_us = Target("acme", "flat", person), worst_case_of(tokens), self.cost.clock.now_us()
        matching = [one for one in self.budgets.values() if one.scope.matches(target) and not one.soft]
        fits = all(amount <= max(0, one.limit_nano_usd - sum(self.used(one, now_us))) for one in matching)
        (outcome,) = await self.cost.books.hold(PROJECT, [order(name, tokens=tokens, attribution=person)])
        if name in self.charges or name in self.given_up:
            live = name in self.charges and self.charges[name].live
            assert (outcome.error is None) == live
        else:
            assert (outcome.error is None) == fits
            if fits:
                self.charges[name] = Charge(target, now_us, held=amount, live=True)

    async def settle(self, name: str) -> None:
        tokens = self.chance.randrange(200)
        (outcome,) = await self.cost.books.settle(PROJECT, [settlement(name, tokens=tokens)])
        if outcome.error is None and outcome.cost is not None:
            charge = self.charges[name]
            charge.held, charge.settled, charge.live = 0, outcome.cost.nano_usd, False

    async def give_up(self, name: str) -> None:
        (outcome,) = await self.cost.books.release(PROJECT, [name])
        self.given_up.add(name)
        if outcome.error is None and name in self.charges:
            self.charges[name] = replace(self.charges[name], held=0, settled=0, live=False)

    async def report(self, name: str) -> None:
        at_us = self.cost.clock.now_us() - self.chance.randrange(3 * DAY_US)
        person, event_id = self.chance.choice(PEOPLE), f"{name}-{self.done.total()}"
        await self.cost.books.report(PROJECT, [report(event_id, tokens=9, attribution=person, occurred_us=at_us)])
        self.charges[event_id] = Charge(Target("acme", "flat", person), at_us, settled=9_000)

    async def pass_time(self, _: str) -> None:
        self.cost.clock.advance(self.chance.choice((1, 61, 3_600, 86_400)))
        now_us = self.cost.clock.now_us()
        await self.cost.books.expire(ExpiryPolicy.CHARGE, 1_000)
        for charge in self.charges.values():
            if charge.live and charge.at_us + 60_000_000 <= now_us:
                charge.held, charge.settled, charge.live = 0, charge.held, False

    async def make(self, _: str) -> None:
        number = 100 + self.done["make"]
        scope, kind = self.chance.choice(SCOPES), self.chance.choice(list(PeriodKind))
        limit, soft = self.chance.choice((200_000, 10**7)), self.chance.random() < 0.3
        try:
            budget_id = await self.cost.budget(
                limit, number=number, scope=scope, kind=kind, soft=soft, time_zone="Asia/Kathmandu"
            )
        except (AlreadyExists, ResourceExhausted):
            return
        self.budgets[budget_id] = (await self.cost.budgets.get(PROJECT, budget_id)).budget

    async def change(self, _: str) -> None:
        if self.budgets:
            budget_id = self.chance.choice(sorted(self.budgets))
            try:
                changed = await self.cost.update(budget_id, scope=self.chance.choice(SCOPES))
            except (AlreadyExists, ResourceExhausted):
                return
            self.budgets[budget_id] = changed.budget

    async def delete(self, _: str) -> None:
        if self.budgets:
            budget_id = self.chance.choice(sorted(self.budgets))
            await self.cost.budgets.delete(PROJECT, budget_id)
            del self.budgets[budget_id]

    async def check(self) -> None:
        """Every balance on record is the sum of its records; a period without a row has none."""
        kept = await self.cost.balances()
        assert {budget_id for budget_id, _ in kept} <= set(self.budgets)
        for one in self.budgets.values():
            times = {charge.at_us for charge in self.charges.values()} | {self.cost.clock.now_us()}
            for at_us in times:
                period = one.period_at(at_us)
                if period.ends_us > one.since_us:
                    assert kept.get((one.budget_id, period.key), (0, 0)) == self.used(one, at_us), period.key


@pytest.mark.parametrize("seed", range(1, 6))
async def test_balances_are_the_sums_of_their_records(cost: Cost, seed: int) -> None:
    story = Story(cost, random.Random(seed))
    weights = {"hold": 8, "settle": 5, "give_up": 2, "report": 2, "pass_time": 2, "make": 2, "change": 1, "delete": 1}
    for step in range(STEPS):
        (deed,) = story.chance.choices(list(weights), list(weights.values()))
        await getattr(story, deed)(f"a{story.chance.randrange(step + 1) // 2}")
        story.done[deed] += 1
        if step % 10 == 9:
            await story.check()
    cost.clock.advance(86_400)
    await story.pass_time("")
    await story.check()
    assert all(held == 0 for _, held in (await cost.balances()).values())
    assert (await cost.counted())[2] == 0
    assert set(story.done) == set(weights)


async def test_a_budget_of_a_story_begins_where_its_records_stand(cost: Cost) -> None:
    """The story's own sums, once by hand."""
    story = Story(cost, random.Random(7))
    story.charges["e"] = Charge(Target("acme", "flat", PEOPLE[0]), NOVEMBER_US, held=5, settled=7)
    assert story.used(budget(1, scope=Scope("usr_1")), NOVEMBER_US) == (7, 5)
    assert story.used(budget(1, scope=Scope("usr_2")), NOVEMBER_US) == (0, 0)
