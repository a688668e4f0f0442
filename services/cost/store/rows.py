"""Rows to domain values and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson
from sqlalchemy import RowMapping

from services.cost.budgets import Budget
from services.cost.events import Cost, UsageEvent
from services.cost.holds import Hold, HoldState
from services.cost.periods import PeriodKind
from services.cost.pricing.prices import Breakdown
from services.cost.scopes import Scope
from services.cost.spend import Sums
from services.cost.usage import COUNT_FIELDS, Attribution, Usage, UsageSource

NO_ENTRIES: Final = "{}"
"""Tags or metadata of an event that has none."""
_SEPARATOR: Final = ","


def budget_of(row: RowMapping) -> Budget:
    """A row of `budgets`."""
    return Budget(
        budget_id=row["budget_id"],
        project_id=row["project_id"],
        name=row["name"],
        scope=Scope(row["user_id"], row["key_id"], row["run_id"], row["tag"], row["model"]),
        kind=PeriodKind(row["period"]),
        time_zone=row["time_zone"],
        limit_nano_usd=row["limit_nano_usd"],
        soft=row["soft"],
        thresholds_percent=tuple([int(percent) for percent in row["thresholds"].split(_SEPARATOR)]),
        created_us=row["created_us"],
        since_us=row["since_us"],
    )


def row_of_budget(budget: Budget) -> dict[str, Any]:
    """A row for `budgets`."""
    return {
        "budget_id": budget.budget_id,
        "project_id": budget.project_id,
        "name": budget.name,
        **asdict(budget.scope),
        "anchor": budget.scope.anchor,
        "period": budget.kind.value,
        "time_zone": budget.time_zone,
        "limit_nano_usd": budget.limit_nano_usd,
        "soft": budget.soft,
        "thresholds": _SEPARATOR.join(map(str, budget.thresholds_percent)),
        "created_us": budget.created_us,
        "since_us": budget.since_us,
    }


def hold_of(row: Sequence[Any]) -> Hold:
    """A row of `holds`, all columns in their order."""
    _, attempt_id, nonce, state, provider, model, user_id, key_id, run_id, tags, held, *others = row
    priced, created_us, expires_us, service_tier = others
    return Hold(
        attempt_id=attempt_id,
        nonce=nonce,
        state=HoldState(state),
        provider=provider,
        model=model,
        attribution=attribution_of(user_id, key_id, run_id, tags),
        held_nano_usd=held,
        priced=priced,
        created_us=created_us,
        expires_us=expires_us,
        service_tier=service_tier,
    )


def row_of_hold(project_id: str, hold: Hold) -> dict[str, Any]:
    """A row for `holds`."""
    return {
        "project_id": project_id,
        "attempt_id": hold.attempt_id,
        "nonce": hold.nonce,
        "state": hold.state.value,
        "provider": hold.provider,
        "model": hold.model,
        "user_id": hold.attribution.user_id,
        "key_id": hold.attribution.key_id,
        "run_id": hold.attribution.run_id,
        "tags": _entries_text(hold.attribution.tags),
        "held_nano_usd": hold.held_nano_usd,
        "priced": hold.priced,
        "created_us": hold.created_us,
        "expires_us": hold.expires_us,
        "service_tier": hold.service_tier,
    }


def event_of(row: RowMapping | Mapping[str, Any]) -> UsageEvent:
    """A row of `usage_events` that stands for a call."""
    return UsageEvent(
        source=row["source"],
        event_id=row["event_id"],
        digest=bytes(row["digest"]),
        provider=row["provider"],
        model=row["model"],
        provider_model=row["provider_model"],
        attribution=attribution_of(row["user_id"], row["key_id"], row["run_id"], row["tags"]),
        usage=Usage(**{name: row[name] for name in COUNT_FIELDS}, source=UsageSource(row["usage_source"])),
        succeeded=row["succeeded"],
        cost=Cost(row["cost_nano_usd"], priced=row["priced"], price_version=row["price_version"]),
        breakdown=Breakdown(**orjson.loads(row["cost_parts"])),
        held_nano_usd=row["held_nano_usd"],
        occurred_us=row["occurred_us"],
        charged_us=row["charged_us"] or row["occurred_us"],
        recorded_us=row["recorded_us"],
        service_tier=row["service_tier"],
        metadata=_entries_of(row["metadata"]),
    )


def row_of_event(project_id: str, event: UsageEvent) -> dict[str, Any]:
    """A row for `usage_events`, but for its sequence."""
    user_id, key_id, run_id, tags = event.attribution
    cost_nano_usd, priced, price_version = event.cost
    occurred_us, charged_us = event.occurred_us, event.charged_us
    row = {
        "project_id": project_id,
        "source": event.source,
        "event_id": event.event_id,
        "digest": event.digest,
        "provider": event.provider,
        "model": event.model,
        "provider_model": event.provider_model,
        "user_id": user_id,
        "key_id": key_id,
        "run_id": run_id,
        "tags": _entries_text(tags),
        "usage_source": int(event.usage.source),
        "succeeded": event.succeeded,
        "priced": priced,
        "cost_nano_usd": cost_nano_usd,
        "cost_parts": orjson.dumps(event.breakdown.parts()).decode(),
        "price_version": price_version,
        "held_nano_usd": event.held_nano_usd,
        "occurred_us": occurred_us,
        "charged_us": 0 if charged_us == occurred_us else charged_us,
        "recorded_us": event.recorded_us,
        "service_tier": event.service_tier,
        "metadata": _entries_text(event.metadata),
        "tag_count": len(tags),
        "calls": event.calls,
        "unpriced_calls": event.unpriced_calls,
    }
    row.update(zip(COUNT_FIELDS, event.usage.counts(), strict=True))
    return row


def sums_of(row: RowMapping | Mapping[str, Any]) -> Sums:
    """Summed columns. PostgreSQL sums 64-bit numbers into decimals, and an empty sum is NULL."""
    return Sums(
        calls=int(row["calls"] or 0),
        unpriced_calls=int(row["unpriced_calls"] or 0),
        cost_nano_usd=int(row["cost_nano_usd"] or 0),
        counts=[int(row[name] or 0) for name in COUNT_FIELDS],
    )


def attribution_of(user_id: str, key_id: str, run_id: str, tags: str) -> Attribution:
    """The four columns of an attribution."""
    return Attribution(user_id, key_id, run_id, _entries_of(tags))


def _entries_of(text: str) -> tuple[tuple[str, str], ...]:
    return () if text == NO_ENTRIES else tuple(orjson.loads(text).items())


def _entries_text(entries: Sequence[tuple[str, str]]) -> str:
    return orjson.dumps(dict(entries)).decode() if entries else NO_ENTRIES
