"""The first start on a person's own machine: an owner, a project, and an API key that the `llmlab` command finds.

The key goes to ``<home>/credentials.json``, readable by its owner only. A file whose key still works is left alone, so
this happens once; one whose key does not (the database was deleted, the key revoked) is replaced, and keys that an
earlier start made in the same database are revoked, since nobody holds them any more.
"""

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from services.identity.accounts import ALL_PERMISSIONS, Project, User
from services.identity.credentials import Credentials
from services.identity.logins import DEFAULT_PROJECT_NAME
from services.identity.store import IdentityStore
from services.runtime.auth import Principal
from services.runtime.clock import Clock
from services.runtime.errors import AlreadyExists, Unauthenticated
from services.runtime.ids import new_id

OWNER_EMAIL: Final = "owner@localhost"
FILE_NAME: Final = "credentials.json"
KEY_NAME: Final = "bootstrap (credentials.json)"
_PAGE: Final = 100

_log = logging.getLogger(__name__)


async def ensure_owner(store: IdentityStore, credentials: Credentials, clock: Clock, home: Path) -> None:
    """Makes what is missing of owner, project, key and file. A crash between any two steps is mended by the next start.

    The owner has no password; whoever can read the file, or the database, is the owner. Raises OSError.
    """
    path = home / FILE_NAME
    if await _works(credentials, await asyncio.to_thread(_key_in, path)):
        return

    async def write(content: dict[str, str]) -> None:
        await asyncio.to_thread(write_private, path, json.dumps(content, indent=2) + "\n")
        _log.info("wrote the owner's API key to %s", path)

    await new_owner_key(store, credentials, clock, keep=write)


async def new_owner_key(
    store: IdentityStore, credentials: Credentials, clock: Clock, keep: Callable[[dict[str, str]], Awaitable[None]]
) -> None:
    """Make what is missing of owner and project, and a new key of theirs; earlier keys of this kind are revoked.

    `keep` gets api_key, project_id and user_id, and stores them before the earlier keys stop working.
    """
    user_id, project_id = await _owner(store, clock)
    caller = Principal(subject=user_id, project_id=project_id, user_id=user_id, permissions=ALL_PERMISSIONS)
    key, text = await credentials.create_api_key(caller, name=KEY_NAME, permissions=ALL_PERMISSIONS, expires_in_s=0)
    await keep({"api_key": text, "project_id": project_id, "user_id": user_id})
    await _revoke_earlier(credentials, caller, key.key_id)


async def _owner(store: IdentityStore, clock: Clock) -> tuple[str, str]:
    now_us = clock.now_us()
    user = User(new_id("usr"), OWNER_EMAIL, "Owner", password_hash="", created_at_us=now_us)
    project = Project(new_id("prj"), DEFAULT_PROJECT_NAME, now_us)
    try:
        await store.create_account(user, project)
    except AlreadyExists:
        existing = await store.find_user(OWNER_EMAIL)
        membership = await store.find_membership(existing.user_id, "") if existing else None
        if membership is None:
            raise
        return membership.user_id, membership.project_id
    return user.user_id, project.project_id


async def _revoke_earlier(credentials: Credentials, caller: Principal, newest_key_id: str) -> None:
    after = ""
    while page := await credentials.list_api_keys(caller, after_key_id=after, limit=_PAGE):
        after = page[-1].key_id
        for key in page:
            if key.name == KEY_NAME and key.key_id != newest_key_id and not key.revoked_at_us:
                await credentials.revoke_api_key(caller, key.key_id)


async def _works(credentials: Credentials, api_key: str) -> bool:
    try:
        await credentials.exchange_api_key(api_key)
    except Unauthenticated:
        return False
    return True


def _key_in(path: Path) -> str:
    """The key in the file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return ""
    key = content.get("api_key") if isinstance(content, dict) else None
    return key if isinstance(key, str) else ""


def write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600 at once or not at all; what is there before is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp gives mode 0600.
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
