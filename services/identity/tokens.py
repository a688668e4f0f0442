"""Access tokens: short-lived JWTs, signed with Ed25519, that every service verifies by itself.

Claims: ``sub`` who acts, ``prj`` the one project, ``usr`` and ``key`` the person and API key behind it, ``perm`` what
it may do, ``typ`` user or delegated, ``dlg`` the delegation, beside the registered ``iss``, ``aud``, ``iat``, ``nbf``,
``exp``, ``jti`` (RFC 7519). The header names the key (``kid``) and the only algorithm, EdDSA (RFC 8037).
"""

import secrets
from dataclasses import dataclass
from typing import Final, Literal

import jwt

from services.identity.signing_keys import SigningKey

AUDIENCE: Final = "llmlab"
ISSUER: Final = "llmlab-identity"
_TOKEN_ID_BYTES: Final = 16
_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a token speaks for, in which project, and what it allows."""

    user_id: str
    project_id: str
    permissions: frozenset[str]
    key_id: str = ""
    delegation_id: str = ""

    @property
    def kind(self) -> Literal["user", "delegated"]:
        """The ``typ`` claim. Service tokens are made by the services themselves."""
        return "delegated" if self.delegation_id else "user"

    @property
    def name(self) -> str:
        """The ``sub`` claim: the most specific thing that acts."""
        return self.delegation_id or self.key_id or self.user_id


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token and its end, microseconds UTC."""

    text: str
    expires_at_us: int


def issue(subject: Subject, key: SigningKey, *, now_us: int, life_s: int) -> AccessToken:
    """Signs a token for ``subject`` that lives ``life_s`` seconds."""
    issued_at_s = now_us // _US_PER_S
    expires_at_s = issued_at_s + life_s
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject.name,
        "prj": subject.project_id,
        "usr": subject.user_id,
        "key": subject.key_id,
        "perm": sorted(subject.permissions),
        "typ": subject.kind,
        "dlg": subject.delegation_id,
        "iat": issued_at_s,
        "nbf": issued_at_s,
        "exp": expires_at_s,
        "jti": secrets.token_urlsafe(_TOKEN_ID_BYTES),
    }
    text = jwt.encode(claims, key.private_key, algorithm="EdDSA", headers={"kid": key.key_id})
    return AccessToken(text=text, expires_at_us=expires_at_s * _US_PER_S)
