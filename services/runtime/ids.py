"""Prefixed, time-ordered identifiers: `run_01k9x3...`.

After the prefix stand 26 characters of Crockford base32 in lower case (no i, l, o, u), which hold 128 bits: 48 bits of
Unix milliseconds, then 80 random bits (the layout of a ULID, https://github.com/ulid/spec). Text order is time order,
so an index on an id is appended to and keyset pages come in the order of creation.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE_OF = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_RANDOM_BYTES = 10
_RANDOM_SHIFTS = range(70, -1, -10)
_BODY_LENGTH = 26


def new_id(prefix: str, *, now_us: int | None = None) -> str:
    """A new identifier `<prefix>_<26 characters>`; `now_us` replaces the system's clock (microseconds, UTC)."""
    now_ms = time.time_ns() // 1_000_000 if now_us is None else now_us // 1_000
    number = int.from_bytes(os.urandom(_RANDOM_BYTES), "big")
    # Pairs of characters, 10 bits each: half the steps of one character at a time.
    return f"{prefix}_{_time_text(now_ms)}{''.join([_PAIRS[(number >> shift) & 0x3FF] for shift in _RANDOM_SHIFTS])}"


@lru_cache(8)
def _time_text(now_ms: int) -> str:
    """48 bits in 10 characters; many ids are made in the same millisecond."""
    return "".join([_PAIRS[(now_ms & 0xFFFF_FFFF_FFFF) >> shift & 0x3FF] for shift in range(40, -1, -10)])


def id_time_ms(identifier: str) -> int:
    """The Unix milliseconds inside an identifier; ValueError when it is not one of ours."""
    _, separator, body = identifier.rpartition("_")
    if not separator or len(body) != _BODY_LENGTH or not all(character in _VALUE_OF for character in body):
        raise ValueError(f"not an identifier: {identifier[:64]!r}")
    value = 0
    for character in body:
        value = value << 5 | _VALUE_OF[character]
    return value >> 80
