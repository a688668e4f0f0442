"""API keys: long-lived credentials for programs, bound to one project.

A key reads ``llmlab_<env>_<id>_<secret><checksum>``. The prefix lets secret scanners find a leaked one; the id finds
its row without a search; the secret is 256 random bits; the checksum (CRC-32 of all before it) tells a typing error
from a revoked key without a look at the database. Only the SHA-256 of the whole key is stored: with that much
randomness a slow hash would protect nothing.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Final

from services.runtime.errors import InvalidField, Unauthenticated

PREFIX: Final = "llmlab"
SECRET_BITS: Final = 256

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH: Final = 43  # ceil(256 / log2(62))
_CHECKSUM_LENGTH: Final = 6  # ceil(32 / log2(62))
_ENVIRONMENT: Final = re.compile(r"[a-z0-9]{1,16}")
_KEY: Final = re.compile(
    rf"{PREFIX}_[a-z0-9]{{1,16}}_(?P<id>[0-9a-z]{{1,40}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}"
    rf"(?P<checksum>[0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is stored of a key; ``prefix`` is its text without the secret. Times are microseconds UTC; 0 means never."""

    key_id: str
    project_id: str
    user_id: str
    name: str
    prefix: str
    digest: bytes
    permissions: frozenset[str]
    created_at_us: int
    expires_at_us: int
    revoked_at_us: int

    def is_live(self, now_us: int) -> bool:
        """Whether it has neither been revoked nor expired."""
        return not self.revoked_at_us and (not self.expires_at_us or now_us < self.expires_at_us)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key's text, to be shown once, and what is stored of it."""

    text: str
    digest: bytes
    prefix: str


def mint(environment: str, key_id: str) -> MintedKey:
    """Makes the text of the key with id ``key_...``. Raises InvalidField on a bad environment name."""
    if not _ENVIRONMENT.fullmatch(environment):
        raise InvalidField("key_environment", "use 1 to 16 lower-case letters and digits, for example live.")
    prefix = f"{PREFIX}_{environment}_{key_id.removeprefix('key_')}"
    body = f"{prefix}_{_base62(secrets.randbits(SECRET_BITS), _SECRET_LENGTH)}"
    text = body + _checksum(body)
    return MintedKey(text=text, digest=digest(text), prefix=prefix)


def key_id_of(text: str) -> str:
    """The id of the row that a key names. Raises Unauthenticated where the text cannot be a key."""
    match = _KEY.fullmatch(text)
    if match is None or not hmac.compare_digest(match["checksum"], _checksum(text[:-_CHECKSUM_LENGTH])):
        raise Unauthenticated("CREDENTIAL_INVALID", "This is not an llmlab API key; check that it was copied whole.")
    return f"key_{match['id']}"


def digest(text: str) -> bytes:
    """SHA-256 of the whole key."""
    return hashlib.sha256(text.encode()).digest()


def check(text: str, stored: ApiKey | None, now_us: int) -> ApiKey:
    """The key that ``text`` opens, compared in constant time. Raises Unauthenticated."""
    if not hmac.compare_digest(digest(text), stored.digest if stored else bytes(32)) or stored is None:
        raise Unauthenticated("CREDENTIAL_INVALID", "The API key is unknown; make another with CreateApiKey.")
    if stored.revoked_at_us:
        raise Unauthenticated("CREDENTIAL_INVALID", "The API key was revoked; make another with CreateApiKey.")
    if stored.expires_at_us and stored.expires_at_us <= now_us:
        raise Unauthenticated("CREDENTIAL_EXPIRED", "The API key has expired; make another with CreateApiKey.")
    return stored


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
