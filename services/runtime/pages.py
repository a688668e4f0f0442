"""Page tokens: where a list goes on, bound to the filter it belongs to.

A token is opaque to clients. It holds the keyset position (the sort key of the last row that was sent) and a checksum
keyed with the filter's fingerprint, so that a token which was altered, or comes from another filter, project or list,
is refused instead of giving a wrong page. It is no secret and grants nothing: every page's query names its project.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from services.runtime.errors import InvalidField

PageKey = tuple[str | int, ...]

MAX_PAGE_TOKEN_LENGTH = 4096
_CHECKSUM_BYTES = 12


def filter_fingerprint(*parts: object) -> bytes:
    """A fingerprint of everything that decides which rows a list has and their order: method, project, each filter.

    Parts are compared by their JSON form; lists and dicts of plain values are welcome.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=32).digest()


def encode_page_token(fingerprint: bytes, key: Sequence[str | int]) -> str:
    """The token of the page that starts after the row with this sort key."""
    body = json.dumps(list(key), separators=(",", ":"), ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(_checksum(fingerprint, body) + body).rstrip(b"=").decode()


def decode_page_token(fingerprint: bytes, token: str, field: str = "page_token") -> PageKey | None:
    """The sort key inside the token; None for the empty token, the first page. `field` is where the token came.

    Raises InvalidField (reason INVALID_PAGE_TOKEN) for any other text.
    """
    if not token:
        return None
    try:
        if len(token) > MAX_PAGE_TOKEN_LENGTH:
            raise _refusal(field)
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _refusal(field) from None
    checksum, body = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
    if checksum != _checksum(fingerprint, body):
        raise _refusal(field)
    return tuple(json.loads(body))


def _checksum(fingerprint: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, key=fingerprint, person=b"llmlab-page").digest()


def _refusal(field: str) -> InvalidField:
    return InvalidField(
        field,
        f"the token is malformed or belongs to another filter; start again with an empty {field}",
        "INVALID_PAGE_TOKEN",
    )
