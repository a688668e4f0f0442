"""What the service does on the books of its projects; every write goes through one group commit."""

import logging
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol, TypeVar

from services.cost.events import HoldOrder, Settlement, UsageReport
from services.cost.holds import ExpiryPolicy
from services.cost.ledger import HoldOutcome, Ledger, ReleaseOutcome, ReportOutcome, Resolution, SettleOutcome
from services.cost.posting import Posting
from services.runtime import telemetry
from services.runtime.batcher import OverlappingBatcher
from services.runtime.errors import DomainError
from services.runtime.failpoints import failpoint

R = TypeVar("R")

_log = logging.getLogger(__name__)


class BookStore(Protocol):
    """Where the books are kept."""

    async def post(self, postings: Sequence[Posting[Any]], pass_on: Callable[[], None]) -> list[Any]:
        """Run the postings in one transaction; each gives its result, or the DomainError that it raised.

        Calls `pass_on` once the next transaction may begin, which can be before this one is durable.
        """
        ...

    async def expired_holds(self, limit: int, without: Collection[str]) -> list[tuple[str, str]]:
        """Live holds whose time is over, the oldest first, as (project id, attempt id); not of the projects named."""
        ...


class Expiry(NamedTuple):
    """What came of a look for holds whose time is over."""

    expired: int
    failed: Collection[str]
    """Projects whose holds are still there."""


class Bookkeeping:
    """Holds, settlements, releases and reports, durable when a method returns."""

    def __init__(self, store: BookStore, *, max_batch: int, max_queue: int, max_in_flight: int) -> None:
        """Requests share a transaction for at most `max_batch` holds, settlements and reports; `max_queue` wait.

        Transactions become durable while the next are computed; `max_in_flight` are under way at most.
        """
        self._store = store
        self._held, self._not_held = (telemetry.counter("holds", outcome=each) for each in ("held", "refused"))
        self._settled, self._not_settled = (
            telemetry.counter("settlements", outcome=each) for each in ("settled", "refused")
        )
        self._batcher: OverlappingBatcher[Posting[Any], Any] = OverlappingBatcher(
            store.post,
            max_in_flight=max_in_flight,
            max_batch=max_batch,
            max_queue=max_queue,
            weight=_weight,
            name="cost",
        )

    @property
    def waiting(self) -> int:
        """Requests that wait for their transaction to begin."""
        return self._batcher.waiting

    async def close(self) -> None:
        """Finish what was handed in."""
        await self._batcher.close()

    async def hold(self, project_id: str, orders: Sequence[HoldOrder]) -> list[HoldOutcome]:
        """Reserve for several attempts; each has its own outcome, in their order."""

        def apply(ledger: Ledger) -> list[HoldOutcome]:
            return [ledger.hold(order) for order in orders]

        attempt_ids = tuple([order.attempt_id for order in orders])
        charges = tuple([(order.target, None) for order in orders])
        outcomes = await self._post(Posting(project_id, apply, attempt_ids, charges=charges))
        refused = sum([outcome.error is not None for outcome in outcomes])
        self._held.add(len(outcomes) - refused)
        self._not_held.add(refused)
        failpoint("cost.hold_committed")
        return outcomes

    async def settle(self, project_id: str, settlements: Sequence[Settlement]) -> list[SettleOutcome]:
        """Settle several attempts; each has its own outcome, in their order."""

        def apply(ledger: Ledger) -> list[SettleOutcome]:
            return [ledger.settle(settlement) for settlement in settlements]

        outcomes = await self._post(Posting(project_id, apply, tuple([one.attempt_id for one in settlements])))
        refused = sum([outcome.error is not None for outcome in outcomes])
        self._settled.add(len(outcomes) - refused)
        self._not_settled.add(refused)
        failpoint("cost.settle_committed")
        return outcomes

    async def release(self, project_id: str, attempt_ids: Sequence[str]) -> list[ReleaseOutcome]:
        """Give several holds back; each has its own outcome, in their order."""

        def apply(ledger: Ledger) -> list[ReleaseOutcome]:
            return [ledger.release(attempt_id) for attempt_id in attempt_ids]

        return await self._post(Posting(project_id, apply, tuple(attempt_ids)))

    async def resolve(self, project_id: str, attempt_ids: Sequence[str]) -> list[Resolution]:
        """Say what is known of attempts, in their order, and give up those that have no hold."""

        def apply(ledger: Ledger) -> list[Resolution]:
            return [ledger.resolve(attempt_id) for attempt_id in attempt_ids]

        return await self._post(Posting(project_id, apply, tuple(attempt_ids)))

    async def report(self, project_id: str, reports: Sequence[UsageReport]) -> ReportOutcome:
        """Record usage that had no hold: all of it or none, with the DomainError of the first wrong report."""

        def apply(ledger: Ledger) -> ReportOutcome:
            return ledger.report(reports)

        keys = tuple([(report.source, report.event_id) for report in reports])
        charges = tuple([(report.target, report.occurred_us) for report in reports])
        return await self._post(Posting(project_id, apply, event_keys=keys, charges=charges))

    async def expire(self, policy: ExpiryPolicy, limit: int, without: Collection[str] = ()) -> Expiry:
        """Stop waiting for at most `limit` holds whose time is over, but for those of the projects named.

        A project whose books cannot be changed now does not keep back the others.
        """
        due = sorted(await self._store.expired_holds(limit, without))
        expired, failed = 0, set()
        for project_id, group in groupby(due, key=lambda hold: hold[0]):
            attempt_ids = tuple([attempt_id for _, attempt_id in group])

            def apply(ledger: Ledger, attempt_ids: tuple[str, ...] = attempt_ids) -> None:
                for attempt_id in attempt_ids:
                    ledger.expire(attempt_id, policy)

            try:
                await self._post(Posting(project_id, apply, attempt_ids))
            except DomainError as error:
                _log.warning("holds of project %s could not be expired now: %s", project_id, error)
                failed.add(project_id)
            except Exception:  # noqa: BLE001 (whatever it is, it concerns this project alone)
                _log.exception("holds of project %s could not be expired", project_id)
                failed.add(project_id)
            else:
                expired += len(attempt_ids)
        return Expiry(expired, failed)

    async def _post(self, posting: Posting[R]) -> R:
        result: R = await self._batcher.submit(posting)
        return result


def _weight(posting: Posting[Any]) -> int:
    """The records that a request reads and writes."""
    return len(posting.attempt_ids) + len(posting.event_keys)
