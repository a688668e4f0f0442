"""Instead of accounting, for a gateway that is run without a cost service: nothing is held, nothing billed."""

from __future__ import annotations

from services.gateway.attempts import Attempt, Cost
from services.gateway.layer import Around


class NoAccounting:
    """The hold layer of a pipeline without one; every attempt that left counts as unpriced, none as free."""

    def held(self, attempt: Attempt) -> Around[None]:
        """See Accounting.held."""
        return Around(attempt, _enter, _leave)


async def _enter(attempt: Attempt) -> None:
    attempt.reserved = True


async def _leave(attempt: Attempt, _: None) -> None:
    if attempt.dispatched:
        attempt.cost = Cost(0, unpriced_calls=1)
