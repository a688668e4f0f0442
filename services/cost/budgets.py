"""Hard monthly budgets of a project.

For each budget and period: settled + held <= limit, in integer nano-USD, at every moment and under any concurrency.
Two things can break through it, and both are recorded in full instead of clamped: a call that costs more than its worst
case (the provider broke the limit that was sent), and usage that is reported without a hold.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from services.cost.periods import Month, month_at
from services.runtime.errors import InvalidField, ResourceExhausted

NAME_LENGTH_MAX = 100
NANO_PER_USD = 1_000_000_000
LIMIT_MAX_NANO_USD = 1_000_000 * NANO_PER_USD
UPDATABLE_FIELDS = ("name", "limit_nano_usd")


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what a project may spend in each calendar month of `time_zone`. Times are microseconds UTC."""

    budget_id: str
    project_id: str
    name: str
    limit_nano_usd: int
    time_zone: str
    created_us: int

    def month_at(self, at_us: int) -> Month:
        """The period that holds a time."""
        return month_at(at_us, self.time_zone)


@dataclass(slots=True)
class Balance:
    """Where one budget stands in one period, nano-USD. Changed only by the ledger of its project."""

    budget: Budget
    month: Month
    settled_nano_usd: int = 0
    """Priced usage, and expired holds that policy charges until their outcome is known."""
    held_nano_usd: int = 0
    """Reserved by calls under way."""

    @property
    def remaining_nano_usd(self) -> int:
        """What a further hold may take; never negative."""
        return max(0, self.budget.limit_nano_usd - self.settled_nano_usd - self.held_nano_usd)

    def admits(self, amount_nano_usd: int) -> bool:
        """Whether so much more can be held. A call that costs nothing is admitted by a budget that is used up."""
        return amount_nano_usd <= self.remaining_nano_usd


def check_name(name: str, field: str) -> str:
    """A name of 1 to 100 characters; InvalidField names `field`."""
    if not 1 <= len(name) <= NAME_LENGTH_MAX:
        raise InvalidField(field, f"Give the budget a name of 1 to {NAME_LENGTH_MAX} characters; this has {len(name)}.")
    return name


def check_limit(limit_nano_usd: int, field: str) -> int:
    """A limit between 1 nano-USD and 1,000,000 USD; InvalidField names `field`."""
    if not 1 <= limit_nano_usd <= LIMIT_MAX_NANO_USD:
        raise InvalidField(
            field,
            f"The limit has to be above 0 and at most 1,000,000 USD; {usd(limit_nano_usd)} is not. To let "
            "nothing through set it to 1 nano-USD; to lift it delete the budget.",
        )
    return limit_nano_usd


def check_mask(paths: tuple[str, ...], field: str) -> tuple[str, ...]:
    """The fields that an update names; InvalidField for none, or for one that cannot be changed."""
    if not paths:
        raise InvalidField(field, f"Name the fields to change: {', '.join(UPDATABLE_FIELDS)}.")
    for path in paths:
        if path not in UPDATABLE_FIELDS:
            raise InvalidField(field, f"{path!r} cannot be changed; these can: {', '.join(UPDATABLE_FIELDS)}.")
    return paths


def budget_exceeded(balance: Balance, needed_nano_usd: int) -> ResourceExhausted:
    """The refusal of a hold; it names the budget, what is left of it, and when the next period begins."""
    budget = balance.budget
    resets_at = datetime.fromtimestamp(balance.month.ends_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ResourceExhausted(
        "BUDGET_EXCEEDED",
        f"Budget {budget.name!r} ({budget.budget_id}) has {usd(balance.remaining_nano_usd)} left of "
        f"{usd(budget.limit_nano_usd)} for {balance.month.key}; this call needs up to {usd(needed_nano_usd)}. Raise "
        f"the limit, lower the call's output limit, or wait until the budget resets at {resets_at}.",
        subject=f"budget:{budget.budget_id}",
        metadata={
            "budget_id": budget.budget_id,
            "budget_name": budget.name,
            "period": balance.month.key,
            "limit_nano_usd": str(budget.limit_nano_usd),
            "remaining_nano_usd": str(balance.remaining_nano_usd),
            "needed_nano_usd": str(needed_nano_usd),
            "resets_at": resets_at,
        },
    )


def usd(nano_usd: int) -> str:
    """An amount for a person, exact: "0.0125 USD"."""
    return f"{(Decimal(nano_usd) / NANO_PER_USD).normalize():,f} USD"
