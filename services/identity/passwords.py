"""Passwords: what is accepted, and argon2id hashing off the event loop.

Parameters follow the OWASP Password Storage Cheat Sheet (argon2id, t=2, m=19 MiB, p=1, or stronger). Hashing runs in
one thread, so that a burst of log-ins costs one core and ``memory_kib`` of memory at a time, and the queue in front
of it is bounded.
"""

import unicodedata
from dataclasses import dataclass
from functools import partial
from typing import Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from services.runtime.errors import InvalidField
from services.runtime.threads import WorkerThreads

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 1024
MIN_TIME_COST: Final = 2
MIN_MEMORY_KIB: Final = 19 * 1024


@dataclass(frozen=True, slots=True)
class HashParameters:
    """The cost of one argon2id hash. Raising them makes old hashes be replaced at the next log-in."""

    time_cost: int = MIN_TIME_COST
    memory_kib: int = MIN_MEMORY_KIB
    parallelism: int = 1


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of a check: whether the password matches, and whether its hash should be made anew."""

    matches: bool
    needs_rehash: bool


def checked(password: str) -> str:
    """The form of a password that is hashed: NFKC, so that one typed on another keyboard is the same; never cut.

    Raises InvalidField where it is shorter than 8 or longer than 1,024 characters.
    """
    text = _normalized(password)
    if len(text) < MIN_LENGTH:
        raise InvalidField("password", f"The password has {len(text)} characters; choose at least {MIN_LENGTH}.")
    if len(text) > MAX_LENGTH:
        raise InvalidField("password", f"The password has {len(text)} characters; at most {MAX_LENGTH} are allowed.")
    return text


class PasswordHasher:
    """Hashes and checks passwords in a single thread; beyond ``max_waiting`` that wait, callers are refused at once."""

    def __init__(self, parameters: HashParameters, *, max_waiting: int) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=parameters.time_cost,
            memory_cost=parameters.memory_kib,
            parallelism=parameters.parallelism,
            type=argon2.Type.ID,
        )
        # Checked where there is no account, so that an unknown address takes as long as a wrong password.
        self._decoy = self._argon2.hash("no account has this password")
        self._thread = WorkerThreads("argon2", 1, max_waiting)

    async def hash(self, password: str) -> str:
        """The PHC string to store. Raises InvalidField on a bad length, ResourceExhausted when the queue is full."""
        return await self._thread.run(partial(self._argon2.hash, checked(password)))

    async def verify(self, password: str, stored: str) -> Verification:
        """Checks a password against a stored PHC string; an empty one never matches, and takes as long to find out.

        Raises ResourceExhausted when the queue is full. A password of impossible length just does not match.
        """
        return await self._thread.run(partial(self._verify, password, stored))

    def _verify(self, password: str, stored: str) -> Verification:
        text = _normalized(password[: MAX_LENGTH + 1])
        try:
            self._argon2.verify(stored or self._decoy, text)
        except (VerificationError, InvalidHashError):
            return Verification(matches=False, needs_rehash=False)
        return Verification(matches=bool(stored), needs_rehash=bool(stored) and self._argon2.check_needs_rehash(stored))

    async def close(self) -> None:
        """Finishes what is queued and ends the thread."""
        await self._thread.close()


def _normalized(password: str) -> str:
    return unicodedata.normalize("NFKC", password)
