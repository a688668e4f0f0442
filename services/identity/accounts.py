"""Accounts: people, projects, and what a member of a project may do.

A project is the tenant: every credential is bound to exactly one.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.runtime.errors import InvalidField, PermissionDenied

READ: Final = "READ"
WRITE: Final = "WRITE"
CALL: Final = "CALL"
MANAGE: Final = "MANAGE"

ALL_PERMISSIONS: Final = frozenset({READ, WRITE, CALL, MANAGE})
KEY_DEFAULT_PERMISSIONS: Final = frozenset({READ, WRITE, CALL})

MAX_EMAIL_LENGTH: Final = 254  # RFC 5321, 4.5.3.1.3: a path is at most 256 octets with its angle brackets.
MAX_NAME_LENGTH: Final = 100

# One "@", something on both sides, no blanks or control characters. Only a message that arrives proves an address.
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,253}")


class Role(Enum):
    """What somebody is in a project."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"

    @property
    def permissions(self) -> frozenset[str]:
        """What the role allows. An owner differs from an admin in that a project always keeps one."""
        return _ROLE_PERMISSIONS[self]


_ROLE_PERMISSIONS: Final = {
    Role.OWNER: ALL_PERMISSIONS,
    Role.ADMIN: ALL_PERMISSIONS,
    Role.MEMBER: frozenset({READ, WRITE, CALL}),
    Role.VIEWER: frozenset({READ}),
}


@dataclass(frozen=True, slots=True)
class User:
    """A person. ``password_hash`` is a PHC string, or empty where the account has no password to log in with."""

    user_id: str
    email: str
    name: str
    password_hash: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant."""

    project_id: str
    name: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Membership:
    """One person's role in one project."""

    project_id: str
    user_id: str
    role: Role


def normalized_email(email: str) -> str:
    """The form under which an address is stored and found: trimmed and case-folded. Raises InvalidField."""
    address = email.strip().casefold()
    if len(address) > MAX_EMAIL_LENGTH or not _EMAIL.fullmatch(address):
        raise InvalidField("email", "This is not an e-mail address; write one such as ada@example.org.")
    return address


def checked_name(field: str, name: str) -> str:
    """A trimmed display name of 1 to 100 characters. Raises InvalidField."""
    text = name.strip()
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        raise InvalidField(field, f"Give 1 to {MAX_NAME_LENGTH} characters; this has {len(text)}.")
    return text


def granted(requested: frozenset[str], held: frozenset[str]) -> frozenset[str]:
    """The permissions of a new API key: those asked for; where none are named, all but MANAGE that its maker holds.

    Nobody gives what they do not have: raises PermissionDenied.
    """
    if not requested:
        return held & KEY_DEFAULT_PERMISSIONS
    missing = requested - (held & ALL_PERMISSIONS)
    if missing:
        names = ", ".join(sorted(missing))
        raise PermissionDenied("PERMISSION_DENIED", f"You cannot grant {names}: your own credential lacks it.")
    return requested
