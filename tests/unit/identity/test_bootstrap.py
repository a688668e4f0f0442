"""The first start: an owner and a key that the command line finds, made once and mended where it is lost."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from services.identity.bootstrap import KEY_NAME, OWNER_EMAIL, ensure_owner, write_private
from services.identity.credentials import Credentials
from services.identity.store import IdentityStore
from services.runtime.auth import Principal
from services.runtime.clock import ManualClock
from services.runtime.errors import Unauthenticated


def content(home: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((home / "credentials.json").read_text())
    return read


async def test_the_first_start_writes_a_key_that_works(
    store: IdentityStore, credentials: Credentials, clock: ManualClock, tmp_path: Path
) -> None:
    home = tmp_path / "a home" / "of mine"
    await ensure_owner(store, credentials, clock, home)
    written = content(home)
    assert set(written) == {"api_key", "project_id", "user_id"}
    await credentials.exchange_api_key(written["api_key"])
    owner = await store.find_user(OWNER_EMAIL)
    assert owner is not None
    assert (owner.user_id, owner.password_hash) == (written["user_id"], "")
    assert stat.S_IMODE((home / "credentials.json").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["credentials.json"]


async def test_the_second_start_changes_nothing(
    store: IdentityStore, credentials: Credentials, clock: ManualClock, tmp_path: Path
) -> None:
    await ensure_owner(store, credentials, clock, tmp_path)
    first = content(tmp_path)
    await ensure_owner(store, credentials, clock, tmp_path)
    assert content(tmp_path) == first


@pytest.mark.parametrize("damage", ["deleted", "not JSON", "[]", '{"api_key": 5}', '{"api_key": "llmlab_live_x_y"}'])
async def test_a_lost_file_is_replaced_for_the_same_owner_and_the_lost_key_revoked(
    store: IdentityStore, credentials: Credentials, clock: ManualClock, tmp_path: Path, damage: str
) -> None:
    await ensure_owner(store, credentials, clock, tmp_path)
    first, path = content(tmp_path), tmp_path / "credentials.json"
    path.unlink() if damage == "deleted" else path.write_text(damage)
    await ensure_owner(store, credentials, clock, tmp_path)
    second = content(tmp_path)
    assert (second["project_id"], second["user_id"]) == (first["project_id"], first["user_id"])
    await credentials.exchange_api_key(second["api_key"])
    with pytest.raises(Unauthenticated):
        await credentials.exchange_api_key(first["api_key"])


async def test_keys_that_a_person_made_stay(
    store: IdentityStore, credentials: Credentials, clock: ManualClock, tmp_path: Path
) -> None:
    await ensure_owner(store, credentials, clock, tmp_path)
    written = content(tmp_path)
    caller = Principal(
        subject=written["user_id"],
        project_id=written["project_id"],
        user_id=written["user_id"],
        permissions=frozenset({"READ", "MANAGE"}),
    )
    _, own = await credentials.create_api_key(caller, name="mine", permissions=frozenset({"READ"}), expires_in_s=0)
    (tmp_path / "credentials.json").unlink()
    await ensure_owner(store, credentials, clock, tmp_path)
    await credentials.exchange_api_key(own)
    keys = await credentials.list_api_keys(caller, after_key_id="", limit=10)
    assert sorted((key.name, bool(key.revoked_at_us)) for key in keys) == [
        (KEY_NAME, False),
        (KEY_NAME, True),
        ("mine", False),
    ]


def test_a_file_that_cannot_be_written_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["credentials.json"]
