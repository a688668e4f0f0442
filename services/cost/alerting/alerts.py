"""What people are told about spending without asking: alerts, each at most once a subject, period and threshold.

Which thresholds a transaction crossed is plain arithmetic on the settled amounts before and after it. That each fires
once a period - even where the balance falls and rises again, across restarts and replicas - is the database's part:
what makes an alert unique is a unique key there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from services.cost.budgets import Balance, usd


class AlertKind(Enum):
    """What an alert is about."""

    BUDGET_THRESHOLD = "budget_threshold"
    """Settled spending reached a part of the limit."""
    BUDGET_EXHAUSTED = "budget_exhausted"
    """A hard budget refused a call, for the first time in its period."""
    UNPRICED_MODEL = "unpriced_model"
    ANOMALY = "anomaly"


@dataclass(frozen=True, slots=True)
class BudgetFacts:
    """Where a budget stood, nano-USD."""

    budget_name: str
    limit_nano_usd: int
    settled_nano_usd: int
    held_nano_usd: int
    needed_nano_usd: int = 0
    """What a refused call needed; 0 where no refusal raised the alert."""


@dataclass(frozen=True, slots=True)
class AnomalyFacts:
    """A value of spending outside of its band, nano-USD. The time is microseconds UTC."""

    time_us: int
    observed_nano_usd: int
    expected_nano_usd: int
    low_nano_usd: int
    high_nano_usd: int


@dataclass(frozen=True, slots=True)
class AlertDraft:
    """An alert that is to be raised, unless there is one with the same kind, subject, period and threshold."""

    kind: AlertKind
    subject: str
    """The budget's id, "provider/model", or the series of an anomaly."""
    period: str
    """The budget's period, the UTC day of an unpriced model, or what tells one anomaly of a series from the next."""
    threshold_percent: int
    """0 where there is none."""
    facts: BudgetFacts | AnomalyFacts | None
    """None of an unpriced model, whose subject and period say all."""


@dataclass(frozen=True, slots=True)
class AlertLimits:
    """What bounds the alerts of a project and their deliveries."""

    unpriced_per_day: int
    """Models without a price that are told about a UTC day."""
    delivery_window_us: int
    """How long a delivery is tried."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert as it is on record. The time is microseconds UTC."""

    alert_id: str
    sequence: int
    """1, 2, 3 ... in each project, in the order of the commits."""
    created_us: int
    what: AlertDraft

    @property
    def budget_id(self) -> str:
        """The budget that it is about; empty where it is about none."""
        return self.what.subject if isinstance(self.what.facts, BudgetFacts) else ""

    def message(self) -> str:
        """What happened, for a person."""
        what = self.what
        if isinstance(what.facts, BudgetFacts):
            return _budget_message(what, what.facts)
        if isinstance(what.facts, AnomalyFacts):
            facts = what.facts
            return (
                f"Spending of {what.subject} was {usd(facts.observed_nano_usd)} at {iso_time(facts.time_us)}; expected "
                f"was {usd(facts.expected_nano_usd)}, between {usd(facts.low_nano_usd)} and {usd(facts.high_nano_usd)}."
            )
        return (
            f"{what.subject} has no price: what its calls of {what.period} cost is unknown, and a hard budget refuses "
            "them. Set a price for it."
        )


def _budget_message(what: AlertDraft, facts: BudgetFacts) -> str:
    name = f"Budget {facts.budget_name!r} ({what.subject})"
    spent = f"{usd(facts.settled_nano_usd)} of {usd(facts.limit_nano_usd)} in {what.period}"
    if what.kind is AlertKind.BUDGET_THRESHOLD:
        return f"{name} has reached {what.threshold_percent} %: {spent} are spent."
    return (
        f"{name} refused a call that needed up to {usd(facts.needed_nano_usd)}: {spent} are spent and "
        f"{usd(facts.held_nano_usd)} held."
    )


def crossed(
    thresholds: Iterable[int], limit_nano_usd: int, before_nano_usd: int | None, after_nano_usd: int
) -> list[int]:
    """The thresholds, in percent of the limit, that a rise of the settled amount reached; None: from nothing at all.

    >>> crossed((50, 80, 100), 1_000, 499, 800)
    [50, 80]
    """
    return [
        percent
        for percent in thresholds
        if after_nano_usd * 100 >= percent * limit_nano_usd
        and (before_nano_usd is None or before_nano_usd * 100 < percent * limit_nano_usd)
    ]


def reached(balance: Balance, before_nano_usd: int | None) -> list[AlertDraft]:
    """What to tell about a balance whose settled amount was another one before; None: about a balance seen anew."""
    budget = balance.budget
    settled = balance.settled_nano_usd
    if before_nano_usd is not None and settled <= before_nano_usd:
        return []
    return [
        _of_balance(AlertKind.BUDGET_THRESHOLD, balance, percent)
        for percent in crossed(budget.thresholds_percent, budget.limit_nano_usd, before_nano_usd, settled)
    ]


def refused(balance: Balance, needed_nano_usd: int) -> AlertDraft:
    """A budget did not have enough left for a call."""
    return _of_balance(AlertKind.BUDGET_EXHAUSTED, balance, 0, needed_nano_usd)


def unpriced(model: str, now_us: int) -> AlertDraft:
    """A model ("provider/model") without a price was used, or refused."""
    return AlertDraft(AlertKind.UNPRICED_MODEL, model, iso_time(now_us)[:10], 0, None)


def anomaly(series: str, facts: AnomalyFacts) -> AlertDraft:
    """Spending of a series left its band; the same series and time is one anomaly, however often it is found."""
    return AlertDraft(AlertKind.ANOMALY, series, str(facts.time_us), 0, facts)


def drafts_of(
    changed: Iterable[tuple[Balance, int]], refusals: Iterable[tuple[Balance, int]], models: Iterable[str], now_us: int
) -> list[AlertDraft]:
    """What one transaction on the books of a project has to tell.

    `changed` are balances with their settled amounts before, `refusals` are balances that refused a call with what it
    needed, `models` were used or refused without a price.
    """
    drafts = [draft for balance, before in changed for draft in reached(balance, before)]
    drafts.extend(refused(balance, needed) for balance, needed in refusals)
    drafts.extend(unpriced(model, now_us) for model in models)
    return drafts


def iso_time(at_us: int) -> str:
    """RFC 3339, UTC, whole seconds: "2026-11-18T11:06:40Z"."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of_balance(kind: AlertKind, balance: Balance, percent: int, needed_nano_usd: int = 0) -> AlertDraft:
    budget = balance.budget
    facts = BudgetFacts(
        budget_name=budget.name,
        limit_nano_usd=budget.limit_nano_usd,
        settled_nano_usd=balance.settled_nano_usd,
        held_nano_usd=balance.held_nano_usd,
        needed_nano_usd=needed_nano_usd,
    )
    return AlertDraft(kind, budget.budget_id, balance.period.key, percent, facts)


def payload_of(alert: Alert) -> Mapping[str, object]:
    """The alert as a webhook's JSON body: type, time and data, as Standard Webhooks recommends."""
    what = alert.what
    data: dict[str, object] = {
        "alert_id": alert.alert_id,
        "sequence": alert.sequence,
        "message": alert.message(),
    }
    if isinstance(what.facts, BudgetFacts):
        facts = what.facts
        data |= {
            "budget_id": what.subject,
            "budget_name": facts.budget_name,
            "period": what.period,
            "threshold_percent": what.threshold_percent,
            "limit_nano_usd": facts.limit_nano_usd,
            "settled_nano_usd": facts.settled_nano_usd,
            "held_nano_usd": facts.held_nano_usd,
            "needed_nano_usd": facts.needed_nano_usd,
        }
    elif isinstance(what.facts, AnomalyFacts):
        data |= {
            "series": what.subject,
            "time": iso_time(what.facts.time_us),
            "observed_nano_usd": what.facts.observed_nano_usd,
            "expected_nano_usd": what.facts.expected_nano_usd,
            "low_nano_usd": what.facts.low_nano_usd,
            "high_nano_usd": what.facts.high_nano_usd,
        }
    else:
        data |= {"model": what.subject, "day": what.period}
    return {"type": f"alert.{what.kind.value}", "timestamp": iso_time(alert.created_us), "data": data}
