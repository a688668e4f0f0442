"""The life of a hold: money reserved for one attempt, by the attempt's id.

    (none) --hold--> HELD --settle--> SETTLED
                     HELD --release--> RELEASED
                     HELD --expire--> EXPIRED_CHARGED or EXPIRED_RELEASED, by policy
    EXPIRED_* --settle--> SETTLED, --release--> RELEASED    (the outcome came late and corrects the policy's guess)
    (none) --resolve or release--> TOMBSTONED               (given up: a hold that comes late is refused)

SETTLED, RELEASED and TOMBSTONED are final. Every transition is safe to repeat.
"""

from enum import StrEnum
from typing import NamedTuple

from services.cost.events import UsageEvent
from services.cost.scopes import Target
from services.cost.usage import Attribution
from services.runtime.errors import AlreadyExists, DomainError, WrongState


class HoldState(StrEnum):
    """Where a hold is; the values are stored."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED_CHARGED = "expired_charged"
    EXPIRED_RELEASED = "expired_released"
    TOMBSTONED = "tombstoned"


class ExpiryPolicy(StrEnum):
    """What an expired hold, whose outcome nobody knows, counts as until it is known."""

    CHARGE = "charge"
    RELEASE = "release"


UNRESOLVED = frozenset({HoldState.HELD, HoldState.EXPIRED_CHARGED, HoldState.EXPIRED_RELEASED})
"""States in which the outcome can still be told."""


class Hold(NamedTuple):
    """Money reserved for one attempt. Times are microseconds UTC."""

    attempt_id: str
    nonce: str
    state: HoldState
    provider: str
    model: str
    attribution: Attribution
    held_nano_usd: int
    """The worst case; it stays on record when the hold is resolved."""
    priced: bool
    created_us: int
    """It decides the periods in which budgets are charged."""
    expires_us: int
    service_tier: str = ""
    """The tier that was asked for; empty for the standard one."""

    @property
    def target(self) -> Target:
        """What decides which budgets it is charged to."""
        return Target(self.provider, self.model, self.attribution)

    @property
    def live(self) -> bool:
        """Whether money is reserved by it now."""
        return self.state is HoldState.HELD

    def moved(self, state: HoldState) -> "Hold":
        """The same hold in another state."""
        return Hold(
            self.attempt_id,
            self.nonce,
            state,
            self.provider,
            self.model,
            self.attribution,
            self.held_nano_usd,
            self.priced,
            self.created_us,
            self.expires_us,
            self.service_tier,
        )

    def expired_at(self, now_us: int) -> bool:
        """Whether it is time to give up waiting for its outcome."""
        return self.live and self.expires_us <= now_us


def refusal_of_repeat(hold: Hold, nonce: str) -> DomainError | None:
    """Why an existing hold refuses a request to hold its attempt again; None for a repeat while the hold stands."""
    if hold.state is HoldState.TOMBSTONED:
        return tombstoned(hold.attempt_id)
    if hold.nonce and hold.nonce != nonce:
        return AlreadyExists(
            "HOLD_NONCE_MISMATCH",
            f"Attempt {hold.attempt_id} was dispatched before under another nonce; do not send it. Dispatch the work "
            "again under a new attempt id.",
            metadata={"attempt_id": hold.attempt_id},
        )
    return None if hold.live else resolved(hold)


def refusal_of_settlement(hold: Hold) -> DomainError | None:
    """Why a hold cannot be settled; None where it can. A settled hold is for the caller to compare."""
    if hold.state is HoldState.TOMBSTONED:
        return tombstoned(hold.attempt_id)
    return None if hold.state in UNRESOLVED else resolved(hold)


def resolved(hold: Hold) -> WrongState:
    """The refusal of a hold that was resolved with another outcome."""
    return WrongState(
        "HOLD_RESOLVED",
        f"The hold of attempt {hold.attempt_id} is {hold.state.value.replace('_', ' and ')} already; another outcome "
        "cannot be recorded. Ask ResolveAttempts what is known of it.",
        metadata={"attempt_id": hold.attempt_id, "state": hold.state.value},
    )


def tombstoned(attempt_id: str) -> WrongState:
    """The refusal of an attempt that was given up."""
    return WrongState(
        "HOLD_TOMBSTONED",
        f"Attempt {attempt_id} was given up before it had a hold; do not send it. Dispatch the work again under a new "
        "attempt id.",
        metadata={"attempt_id": attempt_id},
    )


def tombstone(attempt_id: str, now_us: int) -> Hold:
    """The record that an attempt was given up without ever having held money."""
    return Hold(
        attempt_id=attempt_id,
        nonce="",
        state=HoldState.TOMBSTONED,
        provider="",
        model="",
        attribution=Attribution(),
        held_nano_usd=0,
        priced=False,
        created_us=now_us,
        expires_us=now_us,
    )


def hold_of_event(event: UsageEvent) -> Hold:
    """The hold that a usage event settled, after its own record is deleted; its nonce is forgotten."""
    return Hold(
        attempt_id=event.event_id,
        nonce="",
        state=HoldState.SETTLED,
        provider=event.provider,
        model=event.model,
        attribution=event.attribution,
        held_nano_usd=event.held_nano_usd,
        priced=event.cost.priced,
        created_us=event.charged_us,
        expires_us=event.recorded_us,
        service_tier=event.service_tier,
    )


def state_after_expiry(policy: ExpiryPolicy) -> HoldState:
    """What becomes of a hold that expires."""
    return HoldState.EXPIRED_CHARGED if policy is ExpiryPolicy.CHARGE else HoldState.EXPIRED_RELEASED
