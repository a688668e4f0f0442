"""Secrets that have to be kept to be used: encrypted in the database, with a key that is not in it."""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.runtime.errors import WrongState

_NONCE_BYTES = 12
_KEY_BYTES = 32


class Sealer:
    """Encrypts with AES-256-GCM; the owner's id is authenticated, so that a sealed secret fits no other row."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        """Keys are derived from `masters` (HKDF-SHA256), which may serve other purposes too; the first one seals."""
        self._ciphers = tuple(
            AESGCM(HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"llmlab webhook secrets").derive(master))
            for master in masters
        )

    def seal(self, secret: str, owner_id: str) -> bytes:
        """The secret as it may be stored."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, secret.encode(), owner_id.encode())

    def open(self, sealed: bytes, owner_id: str) -> str:
        """The secret. Raises WrongState where it was sealed with a key that is not among these."""
        return self._open(sealed, owner_id)[1]

    def reseal(self, sealed: bytes, owner_id: str) -> bytes | None:
        """The secret as the first key seals it; None: it did. Raises WrongState as `open` does."""
        number, secret = self._open(sealed, owner_id)
        return self.seal(secret, owner_id) if number else None

    def _open(self, sealed: bytes, owner_id: str) -> tuple[int, str]:
        for number, cipher in enumerate(self._ciphers):
            try:
                secret = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner_id.encode())
            except InvalidTag:
                continue
            return number, secret.decode()
        raise WrongState(
            "WRONG_STATE",
            f"the secret of webhook {owner_id} was encrypted with another key: restore LLMLAB_COST_WEBHOOK_KEY (or "
            "LLMLAB_AUTH_SERVICE_KEY), or delete the webhook and create it anew",
        )
