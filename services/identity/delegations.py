"""Delegations: the right of llmlab's own services to go on calling models for somebody, in one project, until an end.

A run outlives the access token that started it. The orchestrator makes a delegation with the caller's token and then
asks for short tokens under it. They allow CALL and nothing else, and only as long as the person, or the key, that gave
the right still holds it: when the key is revoked or the member leaves, the run's calls stop.
"""

from dataclasses import dataclass
from typing import Final

from services.identity.accounts import CALL
from services.runtime.errors import WrongState

DEFAULT_LIFE_S: Final = 30 * 24 * 3600
DELEGATED_PERMISSIONS: Final = frozenset({CALL})


@dataclass(frozen=True, slots=True)
class Delegation:
    """A right given on. Times are microseconds UTC; ``revoked_at_us`` 0 means never. ``key_id`` is empty for people."""

    delegation_id: str
    project_id: str
    user_id: str
    key_id: str
    purpose: str
    created_at_us: int
    expires_at_us: int
    revoked_at_us: int

    def is_live(self, now_us: int) -> bool:
        """Whether it has neither been revoked nor expired."""
        return not self.revoked_at_us and now_us < self.expires_at_us


def check(delegation: Delegation, held_now: frozenset[str], now_us: int) -> None:
    """Passes where a token may be given; ``held_now`` is what the giver holds today.

    Raises WrongState (DELEGATION_ENDED).
    """
    if delegation.revoked_at_us:
        raise _ended("was revoked")
    if delegation.expires_at_us <= now_us:
        raise _ended("has expired")
    if not held_now >= DELEGATED_PERMISSIONS:
        raise _ended("has ended with the key or membership that it came from")


def _ended(how: str) -> WrongState:
    return WrongState("DELEGATION_ENDED", f"The delegation {how}; start the work again to make a new one.")
