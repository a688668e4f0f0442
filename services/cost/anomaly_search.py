"""Looks for anomalies as hours go by, in every project, on one replica at a time."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from services.cost.alerting.alerts import AnomalyFacts
from services.cost.insights import AnomalyDraft, HourlySpend, SearchLimits, anomalies_of
from services.cost.store.alerts import AlertStore
from services.cost.store.anomalies import AnomalyStore, DueSearch
from services.runtime import telemetry
from services.runtime.errors import AlreadyExists, DomainError
from services.runtime.hints import Hints
from services.runtime.liveness import Liveness

LOCK_NAME: Final = "anomaly-search"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchPolicy:
    """When hours are judged, and how many projects at once."""

    interval_s: float
    delay_us: int
    """An hour is judged so long after its end, for usage that is reported late."""
    max_projects: int
    limits: SearchLimits


class AnomalySearch:
    """A loop that judges the hours that have ended. Every replica runs it; a lock lets one of them work."""

    def __init__(
        self, store: AnomalyStore, alerts: AlertStore, liveness: Liveness, hints: Hints, policy: SearchPolicy
    ) -> None:
        self._store = store
        self._alerts = alerts
        self._liveness = liveness
        self._hints = hints
        self._policy = policy
        self._found = telemetry.counter("anomalies_found")

    async def run(self) -> None:
        """Work until cancelled; a database that is away for a while is waited for."""
        while True:
            try:
                async with self._liveness.hold(LOCK_NAME) as lock:
                    while not lock.lost.is_set():
                        if await self.run_once() < self._policy.max_projects:
                            await asyncio.sleep(self._policy.interval_s)
            except AlreadyExists:
                _log.debug("another replica looks for anomalies")
            except DomainError as error:
                _log.warning("anomalies could not be looked for now: %s", error)
            except Exception:  # noqa: BLE001 (any fault is logged; without the loop nobody would look any more)
                _log.exception("anomalies could not be looked for")
            await asyncio.sleep(self._policy.interval_s)

    async def run_once(self) -> int:
        """Search some projects whose hours are due; returns how many."""
        searches = await self._store.due(self._policy.delay_us, self._policy.max_projects)
        for search in searches:
            await self._search(search)
        return len(searches)

    async def _search(self, search: DueSearch) -> None:
        found: list[AnomalyDraft] = []
        for of in await self._store.watched_series(search):
            spend = await self._store.hourly_spend(search, of)
            # A tenth of a second of work: calls go on meanwhile.
            found += await asyncio.to_thread(self._judge, spend, search.from_us)
        untold = await self._store.untold(search, found)
        for draft in untold:
            # Before they are on record: an alert is raised once however often it is tried, so a crash loses none.
            await self.tell(search.project_id, draft)
        if not await self._store.record(search, untold) or not untold:
            return
        self._found.add(len(untold))
        self._hints.publish(self._store.topic(search.project_id))

    async def tell(self, project_id: str, draft: AnomalyDraft) -> None:
        """Raise an alert about an anomaly, unless there is one."""
        facts = AnomalyFacts(draft.start_us, draft.observed, draft.expected, draft.lower, draft.upper)
        await self._alerts.raise_anomaly(project_id, draft.series, facts)

    def _judge(self, spend: HourlySpend, from_us: int) -> list[AnomalyDraft]:
        return list(anomalies_of(spend, from_us, self._policy.limits))
