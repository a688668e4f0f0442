"""The cost service as the gateway needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.gateway.attempts import Cost
from services.gateway.calls import Owner
from services.gateway.usage import TokenUsage

AMBIGUOUS_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED"})
"""Codes of a cost service that may or may not have acted; all others are a refusal."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The worst case of one attempt. `nonce` makes a repeat of the same request harmless and another one refused."""

    attempt_id: str
    nonce: str
    provider: str
    model: str
    input_tokens_max: int
    output_tokens_max: int
    run_id: str
    tags: tuple[tuple[str, str], ...]
    expires_in_ms: int
    steps_max: int = 0
    service_tier: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended. `usage` None: nothing is owed although it was sent.

    An empty `service_tier` means the one that was reserved.
    """

    attempt_id: str
    usage: TokenUsage | None
    provider_model: str
    occurred_at_us: int
    succeeded: bool
    service_tier: str = ""


class CostPort(Protocol):
    """Holds, settlements and what else the gateway asks. Everything is idempotent.

    An item that was handed in is sent even when the caller is cancelled. Raises DomainError: a refusal, or Unavailable
    and its like where the service may or may not have acted.
    """

    async def hold(self, owner: Owner, reservation: Reservation) -> None:
        """Reserve."""
        ...

    async def settle(self, owner: Owner, settlement: Settlement) -> Cost:
        """Record what was used; returns its price."""
        ...

    async def release(self, owner: Owner, attempt_id: str) -> None:
        """Give a reservation back; none being there is fine."""
        ...

    async def record(self, owner: Owner, reservation: Reservation, settlement: Settlement) -> None:
        """Record what an attempt used for which nothing can be held any more."""
        ...

    async def has_hard_budget(self, owner: Owner) -> bool:
        """Whether the project has a budget that refuses calls."""
        ...
