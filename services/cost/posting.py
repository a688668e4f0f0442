"""One request's work on the books of a project, as the group commit gathers it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.cost.ledger import EventKey, Ledger
from services.cost.scopes import Target

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Posting(Generic[R]):
    """What to load for a request, and what to do then."""

    project_id: str
    apply: Callable[[Ledger], R]
    """Pure but for the ledger that it is given: it can be run again on a fresh one. A DomainError that it raises is the
    request's answer, and must leave the ledger as it was."""
    attempt_ids: tuple[str, ...] = ()
    """Every attempt that `apply` names."""
    event_keys: tuple[EventKey, ...] = ()
    """Every reported event that `apply` names."""
    charges: tuple[tuple[Target, int | None], ...] = ()
    """What `apply` charges beside the holds that it names, and when; None is now."""
