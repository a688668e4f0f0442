"""The Ed25519 keys that sign access tokens, and when one follows another.

A key is published before it signs and stays published after it has stopped, until the last token that it signed has
expired. A verifier that refreshes its copy of the list less often than ``publish_ahead_s`` therefore never meets a
token whose key it cannot know.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES: Final = 32
_KEY_ID_LENGTH: Final = 16
_US_PER_S: Final = 1_000_000


@dataclass(frozen=True)
class SigningKey:
    """A private key and its life. It signs from ``signs_from_us`` until another does; times are microseconds UTC.

    ``signs_until_us`` 0: no end (a key that an operator gave, who also replaces it). ``seed`` never leaves the service.
    """

    seed: bytes
    signs_from_us: int
    signs_until_us: int

    @cached_property
    def private_key(self) -> Ed25519PrivateKey:
        """The key, ready to sign."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @cached_property
    def public_bytes(self) -> bytes:
        """The 32 bytes of the public key."""
        return self.private_key.public_key().public_bytes_raw()

    @cached_property
    def key_id(self) -> str:
        """The ``kid``: the beginning of the public key's JWK thumbprint (RFC 7638, RFC 8037 A.3)."""
        x = base64.urlsafe_b64encode(self.public_bytes).rstrip(b"=").decode()
        thumbprint = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest()
        return base64.urlsafe_b64encode(thumbprint).decode()[:_KEY_ID_LENGTH]

    def __repr__(self) -> str:
        """Without the seed, so that no log or traceback shows it."""
        return f"SigningKey(key_id={self.key_id!r})"


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """How long a key signs, how early it is published, and how long its tokens live; all in seconds."""

    signs_s: int
    publish_ahead_s: int
    token_life_s: int


def signing(keys: Sequence[SigningKey], now_us: int) -> SigningKey | None:
    """The key that signs now: of those whose time has come, the latest."""
    ready = [
        key for key in keys if key.signs_from_us <= now_us and (not key.signs_until_us or now_us < key.signs_until_us)
    ]
    return max(ready, key=lambda key: (key.signs_from_us, key.key_id), default=None)


def retires_at_us(key: SigningKey, policy: RotationPolicy) -> int:
    """When the last token that the key signed has expired, microseconds UTC; 0 where it has no end."""
    return key.signs_until_us and key.signs_until_us + policy.token_life_s * _US_PER_S


def published(keys: Sequence[SigningKey], policy: RotationPolicy, now_us: int) -> list[SigningKey]:
    """The keys that verifiers need now: the one that signs first, the others from the newest to the oldest."""
    current = signing(keys, now_us)
    needed = [key for key in keys if not key.signs_until_us or now_us < retires_at_us(key, policy)]
    return sorted(needed, key=lambda key: (key is not current, -key.signs_from_us, key.key_id))


def successor(keys: Sequence[SigningKey], policy: RotationPolicy, now_us: int, seed: bytes) -> SigningKey | None:
    """The key to add now, made from ``seed``; None while those at hand sign for another ``publish_ahead_s``.

    The first key signs at once; each further one begins when the last ends.
    """
    covered_until_us = max((key.signs_until_us for key in keys), default=0)
    if covered_until_us > now_us + policy.publish_ahead_s * _US_PER_S:
        return None
    signs_from_us = max(covered_until_us, now_us)
    return SigningKey(seed=seed, signs_from_us=signs_from_us, signs_until_us=signs_from_us + policy.signs_s * _US_PER_S)
