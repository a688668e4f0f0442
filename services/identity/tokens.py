"""Access tokens: short-lived, and verified by every service by itself (services/runtime/auth.py says their form)."""

from dataclasses import dataclass

from services.identity.signing_keys import SigningKey
from services.runtime.auth import Principal, sign_token

_US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a token speaks for, in which project, and what it allows.

    ``key_id`` is the API key behind it, ``delegation_id`` the delegation; both are empty for a log-in.
    """

    user_id: str
    project_id: str
    permissions: frozenset[str]
    key_id: str = ""
    delegation_id: str = ""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token and its end, microseconds UTC."""

    text: str
    expires_at_us: int


def issue(subject: Subject, key: SigningKey, *, now_us: int, life_s: int) -> AccessToken:
    """Signs a token for ``subject`` that lives ``life_s`` seconds."""
    issued_at_s = now_us // _US_PER_S
    expires_at_s = issued_at_s + life_s
    principal = Principal(
        subject=subject.user_id,
        project_id=subject.project_id,
        user_id=subject.user_id,
        key_id=subject.key_id,
        permissions=subject.permissions,
        kind="delegated" if subject.delegation_id else "user",
        delegation_id=subject.delegation_id,
        expires_at=expires_at_s,
    )
    text = sign_token(principal, key.private_key, key_id=key.key_id, issued_at=issued_at_s)
    return AccessToken(text=text, expires_at_us=expires_at_s * _US_PER_S)
