"""The budgets that a transaction can touch, with where they stand: found by what calls are charged to."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Self

from services.cost.budgets import Balance, Budget
from services.cost.periods import QUARTER_US, Period
from services.cost.scopes import Target, anchors_of

BalanceKey = tuple[str, str]
"""Budget id and the key of the period."""
NO_BUDGETS: Final[Mapping[str, Sequence[Budget]]] = {}


class Standings:
    """Balances by target and time.

    They open at 0 when they are first asked for. The store asks for all that a transaction will need, fills them from
    its rows, and seals them: a balance that would open later would be one that nobody has filled.
    """

    def __init__(self, by_anchor: Mapping[str, Sequence[Budget]] = NO_BUDGETS) -> None:
        """Budgets by their anchors; only those at anchors of calls that are asked for are needed."""
        self._by_anchor = by_anchor
        self._balances: dict[BalanceKey, Balance] = {}
        self._at_anchors: dict[tuple[str, int], Sequence[Balance]] = {}
        self._found: dict[tuple[Target, int], tuple[Balance, ...]] = {}
        self._sealed = False

    def __iter__(self) -> Iterator[Balance]:
        return iter(self._balances.values())

    def __getitem__(self, key: BalanceKey) -> Balance:
        return self._balances[key]

    def fill(self, key: BalanceKey, *, settled_nano_usd: int, held_nano_usd: int) -> None:
        """Set what is on record of a balance; one that is not open is left alone."""
        balance = self._balances.get(key)
        if balance is not None:
            balance.settled_nano_usd = settled_nano_usd
            balance.held_nano_usd = held_nano_usd

    def seal(self) -> None:
        """Let no further balance open: KeyError from then on."""
        self._sealed = True

    @classmethod
    def of(cls, budgets: Iterable[Budget]) -> Self:
        """Standings of all budgets of a project."""
        by_anchor: dict[str, list[Budget]] = {}
        for budget in budgets:
            by_anchor.setdefault(budget.scope.anchor, []).append(budget)
        return cls(by_anchor)

    def at(self, target: Target, at_us: int) -> tuple[Balance, ...]:
        """The balances to which a call is charged in the period that holds a time, by budget id."""
        if not self._by_anchor:
            return ()
        # Periods begin at quarter-hours in every zone, and most requests of a batch fall into one.
        quarter_us = at_us - at_us % QUARTER_US
        found = self._found.get((target, quarter_us))
        if found is None:
            matching = [
                balance
                for anchor in anchors_of(target)
                if anchor in self._by_anchor
                for balance in self._at_anchor(anchor, quarter_us)
                if balance.budget.scope.matches(target)
            ]
            matching.sort(key=_budget_id)
            found = self._found[target, quarter_us] = tuple(matching)
        return found

    def _at_anchor(self, anchor: str, at_us: int) -> Sequence[Balance]:
        """The balances of all budgets at an anchor, whatever else their scopes name."""
        found = self._at_anchors.get((anchor, at_us))
        if found is None:
            budgets = [(budget, budget.period_at(at_us)) for budget in self._by_anchor[anchor]]
            found = [self._open(budget, period) for budget, period in budgets if period.ends_us > budget.since_us]
            self._at_anchors[anchor, at_us] = found
        return found

    def _open(self, budget: Budget, period: Period) -> Balance:
        key = (budget.budget_id, period.key)
        balance = self._balances.get(key)
        if balance is None:
            if self._sealed:
                raise KeyError(f"the balance {key} was not loaded")
            balance = self._balances[key] = Balance(budget, period)
        return balance


def _budget_id(balance: Balance) -> str:
    return balance.budget.budget_id
