"""Instead of the cost service, for a gateway that is run without one: nothing is held, nothing billed."""

from __future__ import annotations

from services.gateway.attempts import Cost
from services.gateway.calls import Owner
from services.gateway.cost_port import Reservation, Settlement


class NoAccounting:
    """A CostPort that agrees to everything and keeps nothing; every call counts as unpriced, none as free."""

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        """Let it go."""

    async def settle(self, owner: Owner, settlement: Settlement) -> Cost:
        """Say that nobody priced it."""
        return Cost(0, unpriced_calls=1)

    async def release(self, owner: Owner, attempt_id: str) -> None:
        """Nothing was held."""

    async def record(self, owner: Owner, reservation: Reservation, settlement: Settlement) -> None:
        """Nothing is kept."""

    async def has_hard_budget(self, owner: Owner) -> bool:
        """There are no budgets."""
        return False
