"""API keys and delegations in use: what they give, and what ends them."""

import jwt
import pytest

from services.identity.accounts import ALL_PERMISSIONS, Project, User
from services.identity.credentials import Credentials
from services.identity.store import IdentityStore
from services.identity.tokens import AccessToken
from services.runtime.auth import Principal
from services.runtime.clock import ManualClock
from services.runtime.errors import InvalidField, NotFound, PermissionDenied, Unauthenticated, WrongState

OWNER = Principal(subject="usr_1", project_id="prj_1", user_id="usr_1", permissions=ALL_PERMISSIONS)
STRANGER = Principal(subject="usr_2", project_id="prj_2", user_id="usr_2", permissions=ALL_PERMISSIONS)
SERVICE = Principal(subject="orchestrator", project_id="prj_1", permissions=frozenset({"SERVICE"}), kind="service")


@pytest.fixture(autouse=True)
async def accounts(store: IdentityStore) -> None:
    await store.create_account(User("usr_1", "ada@example.org", "Ada", "", 1), Project("prj_1", "default", 1))
    await store.create_account(User("usr_2", "eve@example.org", "Eve", "", 2), Project("prj_2", "default", 2))


def claims(token: AccessToken) -> dict[str, object]:
    content: dict[str, object] = jwt.decode(token.text, options={"verify_signature": False})
    return content


async def made(credentials: Credentials, *, expires_in_s: int = 0, permissions: str = "READ CALL") -> tuple[str, str]:
    key, text = await credentials.create_api_key(
        OWNER, name="laptop", permissions=frozenset(permissions.split()), expires_in_s=expires_in_s
    )
    return key.key_id, text


async def test_a_key_is_exchanged_for_what_it_may_do(credentials: Credentials) -> None:
    key_id, text = await made(credentials)
    content = claims(await credentials.exchange_api_key(text))
    assert (content["key"], content["usr"], content["prj"]) == (key_id, "usr_1", "prj_1")
    assert content["perm"] == ["CALL", "READ"]


async def test_a_revoked_or_expired_key_gives_nothing(credentials: Credentials, clock: ManualClock) -> None:
    key_id, revoked = await made(credentials)
    _, expiring = await made(credentials, expires_in_s=60)
    await credentials.exchange_api_key(expiring)
    await credentials.revoke_api_key(OWNER, key_id)
    clock.advance(60)
    reasons = []
    for text in (revoked, expiring):
        with pytest.raises(Unauthenticated) as caught:
            await credentials.exchange_api_key(text)
        reasons.append(caught.value.reason)
    assert reasons == ["CREDENTIAL_INVALID", "CREDENTIAL_EXPIRED"]


async def test_a_key_cannot_do_more_than_its_maker(credentials: Credentials) -> None:
    reader = Principal(subject="usr_1", project_id="prj_1", user_id="usr_1", permissions=frozenset({"READ", "MANAGE"}))
    with pytest.raises(PermissionDenied):
        await credentials.create_api_key(reader, name="x", permissions=frozenset({"CALL"}), expires_in_s=0)
    with pytest.raises(InvalidField):
        await credentials.create_api_key(OWNER, name="  ", permissions=frozenset(), expires_in_s=0)


async def test_projects_do_not_reach_each_other(credentials: Credentials) -> None:
    key_id, _ = await made(credentials)
    delegation = await credentials.create_delegation(OWNER, purpose="run_1", expires_in_s=0)
    assert await credentials.list_api_keys(STRANGER, after_key_id="", limit=10) == []
    with pytest.raises(NotFound):
        await credentials.revoke_api_key(STRANGER, key_id)
    with pytest.raises(NotFound):
        await credentials.issue_delegated_token("prj_2", delegation.delegation_id)


async def test_a_service_makes_neither_keys_nor_delegations(credentials: Credentials) -> None:
    with pytest.raises(PermissionDenied):
        await credentials.create_api_key(SERVICE, name="x", permissions=frozenset(), expires_in_s=0)
    with pytest.raises(PermissionDenied):
        await credentials.create_delegation(SERVICE, purpose="run_1", expires_in_s=0)


async def test_a_delegated_token_calls_models_for_the_person_and_key_behind(credentials: Credentials) -> None:
    key_id, _ = await made(credentials)
    by_key = Principal(
        subject="usr_1", project_id="prj_1", user_id="usr_1", key_id=key_id, permissions=frozenset({"READ", "CALL"})
    )
    delegation = await credentials.create_delegation(by_key, purpose="run_1", expires_in_s=3600)
    content = claims(await credentials.issue_delegated_token("prj_1", delegation.delegation_id))
    assert (content["typ"], content["dlg"]) == ("delegated", delegation.delegation_id)
    assert (content["usr"], content["key"], content["perm"]) == ("usr_1", key_id, ["CALL"])


@pytest.mark.parametrize("end", ["revoke the delegation", "revoke the key", "let it expire"])
async def test_a_delegation_ends_with(credentials: Credentials, clock: ManualClock, end: str) -> None:
    key_id, _ = await made(credentials)
    by_key = Principal(
        subject="usr_1", project_id="prj_1", user_id="usr_1", key_id=key_id, permissions=frozenset({"CALL"})
    )
    delegation = await credentials.create_delegation(by_key, purpose="run_1", expires_in_s=60)
    if end == "revoke the delegation":
        await credentials.revoke_delegation("prj_1", delegation.delegation_id)
    elif end == "revoke the key":
        await credentials.revoke_api_key(OWNER, key_id)
    else:
        clock.advance(60)
    with pytest.raises(WrongState) as caught:
        await credentials.issue_delegated_token("prj_1", delegation.delegation_id)
    assert caught.value.reason == "DELEGATION_ENDED"
