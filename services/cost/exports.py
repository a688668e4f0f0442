"""Files of what was spent, written piece by piece: CSV, JSON Lines, and CSV with the columns of FOCUS.

FOCUS is the FinOps Open Cost and Usage Specification, version 1.2 (https://focus.finops.org). A cost that is
not known, because no call of a row has a price, is an empty cell, never 0.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Protocol

from services.cost.budgets import NANO_PER_USD
from services.cost.periods import Period, PeriodKind, period_at
from services.cost.spend import Dimension, SpendRow, Sums
from services.cost.usage import COUNT_FIELDS
from services.runtime.csv_text import csv_lines, guarded
from services.runtime.errors import InvalidField


class SpendWriter(Protocol):
    """Writes a file as a sequence of texts: `begin`, then `rows` any number of times."""

    def begin(self) -> str:
        """What stands before the first row."""
        ...

    def rows(self, rows: Iterable[SpendRow]) -> str:
        """The text of these rows."""
        ...


class CsvWriter:
    """A line for each group: its keys, then what was counted."""

    def __init__(self, group_by: tuple[Dimension, ...]) -> None:
        self._group_by = group_by

    def begin(self) -> str:
        """The header."""
        return csv_lines([[*(one.value for one in self._group_by), *_FIGURES]])

    def rows(self, rows: Iterable[SpendRow]) -> str:
        """A line for each row."""
        return csv_lines([*map(guarded, row.keys), *_figures(row.sums)] for row in rows)


class JsonLinesWriter:
    """A JSON object for each group, with the columns of CSV; amounts in USD are texts, because they are exact."""

    def __init__(self, group_by: tuple[Dimension, ...]) -> None:
        self._names = (*(one.value for one in group_by), *_FIGURES)

    def begin(self) -> str:
        """Nothing."""
        return ""

    def rows(self, rows: Iterable[SpendRow]) -> str:
        """A line for each row."""
        objects = (dict(zip(self._names, (*row.keys, *_figures(row.sums)), strict=True)) for row in rows)
        return "".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n" for one in objects)


FOCUS_BASE: Final = (Dimension.DAY, Dimension.MODEL)
"""The dimensions that every FOCUS row has; others follow them as columns of our own."""

_FOCUS_COLUMNS: Final = (
    "BilledCost",
    "EffectiveCost",
    "ListCost",
    "ContractedCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "InvoiceIssuerName",
    "ServiceCategory",
    "ServiceName",
)
_X_NAMES: Final = {
    Dimension.USER: "x_UserId",
    Dimension.KEY: "x_KeyId",
    Dimension.RUN: "x_RunId",
    Dimension.TAG: "x_Tag",
}
_X_FIGURES: Final = ("x_Calls", "x_UnpricedCalls", *(f"x_{name.title().replace('_', '')}" for name in COUNT_FIELDS))


class FocusWriter:
    """A charge for each day and model, and for what else is grouped by; days and billing months are those of a zone."""

    def __init__(self, project_id: str, group_by: tuple[Dimension, ...], zone: str) -> None:
        """`group_by` is what `focus_groups` gave."""
        self._project_id = project_id
        self._more = group_by[len(FOCUS_BASE) :]
        self._zone = zone

    def begin(self) -> str:
        """The header."""
        return csv_lines([[*_FOCUS_COLUMNS, *(_X_NAMES[one] for one in self._more), *_X_FIGURES]])

    def rows(self, rows: Iterable[SpendRow]) -> str:
        """A line for each row."""
        return csv_lines(self._cells(row) for row in rows)

    def _cells(self, row: SpendRow) -> list[object]:
        day, model, *more = row.keys
        starts_us = int(row.position[0])
        charged = period_at(starts_us, PeriodKind.DAILY, self._zone)
        billed = period_at(starts_us, PeriodKind.MONTHLY, self._zone)
        provider, _, name = model.partition("/")
        cost = _usd(row.sums)
        tokens = row.sums.counts[0] + row.sums.counts[COUNT_FIELDS.index("output_tokens")]
        account, provider, name = guarded(self._project_id), guarded(provider), guarded(name)
        return [
            *[cost] * 4,
            *[account] * 2,
            "USD",
            *_borders(billed),
            *_borders(charged),
            "Usage",
            None,
            f"Calls of {model} on {day}",
            tokens,
            "Tokens",
            *[provider] * 3,
            "AI and Machine Learning",
            name,
            *map(guarded, more),
            row.sums.calls,
            row.sums.unpriced_calls,
            *row.sums.counts,
        ]


def focus_groups(group_by: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """The groups of a FOCUS export; InvalidField for a dimension that has no column there."""
    more = tuple(one for one in group_by if one not in (*FOCUS_BASE, Dimension.PROVIDER, Dimension.PROJECT))
    for one in more:
        if one not in _X_NAMES:
            raise InvalidField("question.group_by", "A FOCUS export is by day; leave out week and month.")
    return (*FOCUS_BASE, *more)


_FIGURES: Final = ("calls", "unpriced_calls", *COUNT_FIELDS, "cost_nano_usd", "cost_usd")


def _figures(sums: Sums) -> list[object]:
    usd = _usd(sums)
    return [sums.calls, sums.unpriced_calls, *sums.counts, None if usd is None else sums.cost_nano_usd, usd]


def _usd(sums: Sums) -> str | None:
    """The amount, exact; None where no call has a price."""
    if sums.calls and sums.calls == sums.unpriced_calls and not sums.cost_nano_usd:
        return None
    return f"{Decimal(sums.cost_nano_usd) / NANO_PER_USD:f}"


def _borders(period: Period) -> tuple[str, str]:
    return _utc(period.starts_us), _utc(period.ends_us)


def _utc(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
