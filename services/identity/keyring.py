"""The signing keys at hand: read from the store, or given by the operator; renewed while the service runs."""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Final

from services.identity import tokens
from services.identity.signing_keys import SEED_BYTES, RotationPolicy, SigningKey, published, signing
from services.identity.store import IdentityStore
from services.identity.tokens import AccessToken, Subject
from services.runtime.clock import Clock
from services.runtime.errors import DomainError, Unavailable

_FORGET_AFTER_S: Final = 7 * 24 * 3600
_FORGET_AT_ONCE: Final = 1000

_log = logging.getLogger(__name__)


def fixed_keys(seeds: Sequence[bytes]) -> list[SigningKey]:
    """Keys that an operator gave: the first signs, the others are published until they are taken away."""
    return [SigningKey(seed, signs_from_us=-rank, signs_until_us=0) for rank, seed in enumerate(seeds)]


class Keyring:
    """Signs access tokens with the current key and lists those that verifiers need.

    With ``fixed`` keys the store's are left alone, and rotation is the operator's.
    """

    def __init__(
        self, store: IdentityStore, policy: RotationPolicy, clock: Clock, *, fixed: Sequence[SigningKey] = ()
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._fixed = list(fixed)
        self._keys: list[SigningKey] = list(fixed)

    async def renew(self) -> None:
        """Reads the keys, adding one where it is due, so that every replica signs and publishes the same."""
        if not self._fixed:
            self._keys = await self._store.rotate_signing_keys(self._policy, os.urandom(SEED_BYTES))

    async def keep_renewing(self, interval_s: float) -> None:
        """Renews, and deletes what ended long ago, every ``interval_s`` seconds until it is cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.renew()
                await self._store.forget_ended(_FORGET_AFTER_S, _FORGET_AT_ONCE)
            except DomainError as error:
                _log.warning("signing keys were not renewed: %s", error.message)

    def issue(self, subject: Subject) -> AccessToken:
        """Signs a token of the policy's life. Raises Unavailable where no key may sign, which ends by itself."""
        now_us = self._clock.now_us()
        key = signing(self._keys, now_us)
        if key is None:
            raise Unavailable("DEPENDENCY_UNAVAILABLE", "No signing key is valid at this moment; try again.")
        return tokens.issue(subject, key, now_us=now_us, life_s=self._policy.token_life_s)

    def published(self) -> list[SigningKey]:
        """What verifiers need now, the current key first."""
        return published(self._keys, self._policy, self._clock.now_us())

    @property
    def policy(self) -> RotationPolicy:
        """How long keys and tokens live."""
        return self._policy
