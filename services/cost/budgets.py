"""Budgets of a project: limits on what the calls of a scope may cost in a period.

For each hard budget and period: settled + held <= limit, in integer nano-USD, at every moment and under any
concurrency. Two things can break through it, and both are recorded in full instead of clamped: a call that costs more
than its worst case (the provider broke the limit that was sent), and usage that is reported without a hold. A soft
budget refuses nothing.

A balance is what the records say, whatever became of budgets in between: the calls that match the scope and belong to
the period, settled or held. So a budget that is made, or gets another scope, in mid-period begins with what was spent
in it under its scope and with the live holds that match, and from then on each change of a hold changes the balance. A
budget has no balance in periods that had ended by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from services.cost.periods import Period, PeriodKind, period_at
from services.cost.scopes import Scope
from services.runtime.errors import AlreadyExists, InvalidField, ResourceExhausted

NAME_LENGTH_MAX = 100
NANO_PER_USD = 1_000_000_000
LIMIT_MAX_NANO_USD = 1_000_000 * NANO_PER_USD
THRESHOLDS_DEFAULT = (50, 80, 100)
THRESHOLDS_MAX = 10
THRESHOLD_PERCENT_MAX = 1_000
UPDATABLE_FIELDS = ("name", "limit_nano_usd", "scope", "soft", "thresholds_percent")


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what the calls of a scope may cost in each period. Times are microseconds UTC."""

    budget_id: str
    project_id: str
    name: str
    scope: Scope
    kind: PeriodKind
    time_zone: str
    limit_nano_usd: int
    soft: bool
    """Whether it refuses nothing, only raises alerts."""
    thresholds_percent: tuple[int, ...]
    """Parts of the limit, ascending, at which settled spend raises an alert, once a period each."""
    created_us: int
    since_us: int
    """When it was made or got its scope: it has no balance in periods that had ended by then."""

    def period_at(self, at_us: int) -> Period:
        """The period that holds a time."""
        return period_at(at_us, self.kind, self.time_zone)


@dataclass(slots=True)
class Balance:
    """Where one budget stands in one period, nano-USD. Changed only by the ledger of its project."""

    budget: Budget
    period: Period
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
        return self.budget.soft or amount_nano_usd <= self.remaining_nano_usd


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


def check_thresholds(percents: Sequence[int], field: str) -> tuple[int, ...]:
    """Distinct percentages in ascending order; none means 50, 80 and 100. InvalidField names `field`."""
    if len(percents) > THRESHOLDS_MAX:
        raise InvalidField(field, f"Give at most {THRESHOLDS_MAX} thresholds; these are {len(percents)}.")
    for percent in percents:
        if not 1 <= percent <= THRESHOLD_PERCENT_MAX:
            raise InvalidField(
                field, f"A threshold is a percentage of the limit, 1 to {THRESHOLD_PERCENT_MAX}; {percent} is not."
            )
    if len(set(percents)) != len(percents):
        raise InvalidField(field, "Name each threshold once.")
    return tuple(sorted(percents)) or THRESHOLDS_DEFAULT


def check_mask(paths: Sequence[str], field: str) -> tuple[str, ...]:
    """The fields that an update names; InvalidField for none, or for one that cannot be changed."""
    names = ", ".join(UPDATABLE_FIELDS)
    if not paths:
        raise InvalidField(field, f"Name the fields to change: {names}.")
    for path in paths:
        if path not in UPDATABLE_FIELDS:
            raise InvalidField(
                field,
                f"{path!r} cannot be changed; these can: {names}. For another period or time zone delete the budget "
                "and make a new one: it begins with what was spent in its period.",
            )
    return tuple(paths)


def budget_overlaps(other: Budget) -> AlreadyExists:
    """The refusal of a second budget with the same scope and kind of period: their periods would overlap."""
    return AlreadyExists(
        "BUDGET_OVERLAPS",
        f"Budget {other.name!r} ({other.budget_id}) has this scope ({other.scope}) and period "
        f"({other.kind.value}) already; the periods of the two would overlap. Change that one, or choose another scope "
        "or period.",
        metadata={"budget_id": other.budget_id, "budget_name": other.name},
    )


def budget_exceeded(balance: Balance, needed_nano_usd: int) -> ResourceExhausted:
    """The refusal of a hold; it names the budget, what is left of it, and when the next period begins."""
    budget = balance.budget
    period = balance.period
    anew = "" if period.endless else _local_time(period.ends_us, budget.time_zone)
    wait = f", or wait until the budget begins anew at {anew}" if anew else ""
    return ResourceExhausted(
        "BUDGET_EXCEEDED",
        f"Budget {budget.name!r} ({budget.budget_id}) for {budget.scope} has {usd(balance.remaining_nano_usd)} left of "
        f"{usd(budget.limit_nano_usd)} for {balance.period.key}; this call needs up to {usd(needed_nano_usd)}. Raise "
        f"the limit, lower the call's output limit{wait}.",
        subject=f"budget:{budget.budget_id}",
        metadata={
            "budget_id": budget.budget_id,
            "budget_name": budget.name,
            "period": balance.period.key,
            "limit_nano_usd": str(budget.limit_nano_usd),
            "remaining_nano_usd": str(balance.remaining_nano_usd),
            "needed_nano_usd": str(needed_nano_usd),
            "resets_at": "" if period.endless else _iso_time(period.ends_us),
        },
    )


def _local_time(at_us: int, zone: str) -> str:
    """A time by the clock of a zone, for a person: "2026-12-01 00:00 Europe/Berlin"."""
    return f"{datetime.fromtimestamp(at_us // 1_000_000, ZoneInfo(zone)):%Y-%m-%d %H:%M} {zone}"


def _iso_time(at_us: int) -> str:
    """A time for a program: "2026-12-01T00:00:00Z"."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def usd(nano_usd: int) -> str:
    """An amount for a person, exact: "0.0125 USD"."""
    return f"{(Decimal(nano_usd) / NANO_PER_USD).normalize():,f} USD"
