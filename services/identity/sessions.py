"""Sessions: what a log-in begins, kept alive by refresh tokens that work once.

Each refresh gives a new refresh token and uses up the old one. A used one that comes back means that two parties hold
the session, and nobody can say which is the thief: the whole session is revoked (RFC 9700, 4.14.2). Only SHA-256
digests of refresh tokens are stored.
"""

import hashlib
import secrets
from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.runtime.errors import Unauthenticated

_PREFIX: Final = "llmlab_refresh_"
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """A log-in: one person in one project. Times are microseconds UTC; ``revoked_at_us`` 0 means never."""

    session_id: str
    user_id: str
    project_id: str
    created_at_us: int
    expires_at_us: int
    revoked_at_us: int


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What is stored of a refresh token. ``used_at_us`` 0 means not yet."""

    digest: bytes
    session_id: str
    issued_at_us: int
    used_at_us: int


class Outcome(Enum):
    """What has to happen when a refresh token is presented."""

    RENEW = "renew"
    REVOKE = "revoke"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


def new_refresh_token() -> str:
    """A fresh secret of 256 random bits; stored only as its digest."""
    return _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(text: str) -> bytes:
    """SHA-256 of a refresh token."""
    return hashlib.sha256(text.encode()).digest()


def judge(token: RefreshToken | None, session: Session | None, now_us: int) -> Outcome:
    """What follows from presenting ``token`` of ``session`` now."""
    if token is None or session is None or session.revoked_at_us:
        return Outcome.UNKNOWN
    if token.used_at_us:
        return Outcome.REVOKE
    if session.expires_at_us <= now_us:
        return Outcome.EXPIRED
    return Outcome.RENEW


def refused(outcome: Outcome) -> Unauthenticated:
    """The error for an outcome other than RENEW."""
    if outcome is Outcome.REVOKE:
        return Unauthenticated(
            "REFRESH_REUSED", "This refresh token was used before, so its session has been revoked; log in again."
        )
    if outcome is Outcome.EXPIRED:
        return Unauthenticated("CREDENTIAL_EXPIRED", "The session has expired; log in again.")
    return Unauthenticated("CREDENTIAL_INVALID", "The refresh token is unknown or its session has ended; log in again.")
