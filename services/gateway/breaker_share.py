"""What replicas tell each other about their circuit breakers.

Each replica counts for itself, which costs no question to anybody. What is shared is the result: an opening and a
closing are told to all, and when an open breaker's time is over, one replica at a time may probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SharedBreaker:
    """A breaker as it changed. `open_ms` is how long it stays open from now, 0 where it is closed.

    `openings` counts the openings that followed each other closely: the time grows with it.
    """

    deployment: str
    is_open: bool
    open_ms: int
    openings: int


class BreakerShare(Protocol):
    """Where changes are told, and the right to probe is asked for."""

    def tell(self, change: SharedBreaker) -> None:
        """A breaker opened or closed here. Does not wait."""
        ...

    async def may_probe(self, deployment: str) -> bool:
        """Whether this replica may send a probe now; whoever may has to say `probed`."""
        ...

    def probed(self, deployment: str) -> None:
        """The probe is over. Does not wait."""
        ...


class Alone:
    """A replica that has no others."""

    def tell(self, change: SharedBreaker) -> None:
        """See BreakerShare.tell."""

    async def may_probe(self, deployment: str) -> bool:
        """See BreakerShare.may_probe."""
        return True

    def probed(self, deployment: str) -> None:
        """See BreakerShare.probed."""
