"""Runs repricings in batches of bounded size, so that calls go on being held and settled between them."""

from typing import Final, Protocol

from services.cost.pricing.repricing import (
    BEGINNING,
    Difference,
    Look,
    Place,
    Repricing,
    RepricingFilter,
    RepricingState,
    check_filter,
)
from services.runtime.errors import ResourceExhausted
from services.runtime.ids import new_id

MODELS_MAX: Final = 1_000
"""Models that a preview tells apart; a window with more is refused."""


class RepricingBooks(Protocol):
    """Where repricings are kept. Each method is one transaction."""

    async def revision(self, project_id: str) -> int:
        """The project's present revision of prices."""
        ...

    async def look(self, project_id: str, wanted: RepricingFilter, revision: int, after: Place, limit: int) -> Look:
        """The next events after a place, at most `limit`, by the prices of a revision."""
        ...

    async def start(self, project_id: str, repricing_id: str, request_id: str, wanted: RepricingFilter) -> Repricing:
        """Put a repricing on record, or give the one that its request has made before."""
        ...

    async def apply(self, project_id: str, repricing_id: str, limit: int) -> Repricing:
        """Price the next events anew, at most `limit`."""
        ...

    async def reverse(self, project_id: str, repricing_id: str, limit: int) -> Repricing:
        """Take the next adjustments back, at most `limit`."""
        ...


class Repricer:
    """What a repricing would change, doing it, and taking it back."""

    def __init__(self, books: RepricingBooks, *, batch_events: int, call_events: int, preview_events: int) -> None:
        """A transaction takes on `batch_events`, one call `call_events`, and a preview `preview_events` at most."""
        self._books = books
        self._batch_events = batch_events
        self._batches = max(1, call_events // batch_events)
        self._preview_batches = max(1, preview_events // batch_events)

    async def preview(self, project_id: str, wanted: RepricingFilter) -> dict[tuple[str, str], Difference]:
        """What present prices would change, by provider and model. Nothing is written.

        Raises InvalidField for a wrong window, and ResourceExhausted(LIMIT_REACHED) for one with too many events.
        """
        check_filter(wanted)
        revision = await self._books.revision(project_id)
        found: dict[tuple[str, str], Difference] = {}
        place, seen = BEGINNING, 0
        for _ in range(self._preview_batches):
            look = await self._books.look(project_id, wanted, revision, place, self._batch_events)
            for event, now, change in look.examined:
                found.setdefault((event.provider, event.model), Difference()).add(now, change)
            if not look.more:
                return dict(sorted(found.items()))
            seen += len(look.examined)
            if len(found) > MODELS_MAX:
                break
            place = look.place
        raise _too_many(seen)

    async def apply(self, project_id: str, request_id: str, wanted: RepricingFilter) -> Repricing:
        """Price events anew. It is APPLIED when all are done; else the same request goes on with it.

        Raises InvalidField for a wrong window, AlreadyExists for a request id that was used for another filter, and
        WrongState while another repricing is under way.
        """
        check_filter(wanted)
        repricing = await self._books.start(project_id, new_id("rpr"), request_id, wanted)
        for _ in range(self._batches):
            if repricing.state is not RepricingState.APPLYING:
                break
            repricing = await self._books.apply(project_id, repricing.repricing_id, self._batch_events)
        return repricing

    async def reverse(self, project_id: str, repricing_id: str) -> Repricing:
        """Take a repricing back. It is REVERSED when all is done; else the same request goes on with it.

        Raises NotFound, and WrongState where a later repricing stands.
        """
        repricing = await self._books.reverse(project_id, repricing_id, self._batch_events)
        for _ in range(self._batches - 1):
            if repricing.state is not RepricingState.REVERSING:
                break
            repricing = await self._books.reverse(project_id, repricing_id, self._batch_events)
        return repricing


def _too_many(seen: int) -> ResourceExhausted:
    return ResourceExhausted(
        "LIMIT_REACHED",
        f"There is more in the window than the {seen:,} events that were priced, or it has too many models; choose a "
        "shorter window, or one model.",
    )
