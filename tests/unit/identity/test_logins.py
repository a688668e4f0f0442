"""People: sign-up, log-in, refresh, and what holds attackers off."""

from collections.abc import AsyncIterator

import argon2
import pytest

from services.identity.keyring import Keyring
from services.identity.logins import LoggedIn, LoginPolicy, Logins
from services.identity.passwords import HashParameters, PasswordHasher
from services.identity.store import IdentityStore
from services.identity.throttle import AttemptLimiter, Rate
from services.runtime.clock import ManualClock
from services.runtime.errors import (
    AlreadyExists,
    DomainError,
    InvalidField,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    WrongState,
)

PEER = "ipv4:192.0.2.1:5000"
PASSWORD = "correct horse"


@pytest.fixture
async def hasher() -> AsyncIterator[PasswordHasher]:
    hasher = PasswordHasher(HashParameters(), max_waiting=8)
    yield hasher
    await hasher.close()


def logins_with(
    store: IdentityStore, hasher: PasswordHasher, keyring: Keyring, clock: ManualClock, *, sign_up: bool = True
) -> Logins:
    return Logins(
        store,
        hasher,
        keyring,
        LoginPolicy(session_life_s=3600, max_sessions_per_user=3, sign_up_enabled=sign_up),
        clock,
        by_email=AttemptLimiter(Rate(2, 30), max_keys=100, clock=clock),
        by_peer=AttemptLimiter(Rate(4, 30), max_keys=100, clock=clock),
    )


@pytest.fixture
def logins(store: IdentityStore, hasher: PasswordHasher, keyring: Keyring, clock: ManualClock) -> Logins:
    return logins_with(store, hasher, keyring, clock)


async def signed_up(logins: Logins, email: str = "ada@example.org") -> LoggedIn:
    return await logins.sign_up(email=email, password=PASSWORD, name="Ada", project_name="", peer=PEER)


async def refused(logins: Logins, email: str, password: str, *, project_id: str = "", peer: str = PEER) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await logins.log_in(email=email, password=password, project_id=project_id, peer=peer)
    return caught.value


async def test_who_signed_up_logs_in_to_the_same_project(logins: Logins) -> None:
    begun = await signed_up(logins)
    again = await logins.log_in(email=" ADA@example.org", password=PASSWORD, project_id="", peer=PEER)
    assert (again.user, again.project) == (begun.user, begun.project)
    assert begun.project.name == "default"
    assert begun.tokens.refresh_token != again.tokens.refresh_token


async def test_a_taken_address_or_a_bad_field_makes_no_account(logins: Logins, store: IdentityStore) -> None:
    await signed_up(logins)
    with pytest.raises(AlreadyExists):
        await signed_up(logins)
    for field, email, name in (("email", "eve", "Eve"), ("name", "eve@example.org", " ")):
        with pytest.raises(InvalidField) as caught:
            await logins.sign_up(email=email, password=PASSWORD, name=name, project_name="", peer=PEER)
        assert caught.value.field == field
    assert await store.find_user("eve@example.org") is None


async def test_sign_up_can_be_closed(
    store: IdentityStore, hasher: PasswordHasher, keyring: Keyring, clock: ManualClock
) -> None:
    with pytest.raises(WrongState):
        await signed_up(logins_with(store, hasher, keyring, clock, sign_up=False))


async def test_an_unknown_address_and_a_wrong_password_are_not_told_apart(logins: Logins) -> None:
    await signed_up(logins)
    unknown = await refused(logins, "eve@example.org", PASSWORD)
    wrong = await refused(logins, "ada@example.org", "wrong horse")
    assert type(unknown) is type(wrong) is Unauthenticated
    assert (unknown.reason, unknown.message) == (wrong.reason, wrong.message) == ("LOGIN_FAILED", unknown.message)


async def test_guessing_one_account_is_slowed_from_wherever_it_comes(logins: Logins, clock: ManualClock) -> None:
    await signed_up(logins)
    for number in range(2):
        await refused(logins, "ada@example.org", "wrong horse", peer=f"ipv4:192.0.2.{number + 10}:1")
    throttled = await refused(logins, "ada@example.org", PASSWORD, peer="ipv4:192.0.2.20:1")
    assert isinstance(throttled, ResourceExhausted)
    assert (throttled.reason, throttled.retry_after_ms) == ("LOGIN_THROTTLED", 30_000)
    clock.advance(30)
    await logins.log_in(email="ada@example.org", password=PASSWORD, project_id="", peer=PEER)


async def test_guessing_many_accounts_from_one_peer_is_slowed(logins: Logins) -> None:
    for number in range(4):
        assert (await refused(logins, f"user{number}@example.org", PASSWORD)).reason == "LOGIN_FAILED"
    assert (await refused(logins, "user9@example.org", PASSWORD)).reason == "LOGIN_THROTTLED"


async def test_log_ins_that_succeed_are_never_throttled(logins: Logins) -> None:
    await signed_up(logins)
    for _ in range(6):
        await logins.log_in(email="ada@example.org", password=PASSWORD, project_id="", peer=PEER)


async def test_a_foreign_project_is_refused(logins: Logins) -> None:
    await signed_up(logins)
    other = await signed_up(logins, "grace@example.org")
    error = await refused(logins, "ada@example.org", PASSWORD, project_id=other.project.project_id)
    assert isinstance(error, PermissionDenied)


async def test_a_hash_with_old_parameters_is_renewed_at_log_in(logins: Logins, store: IdentityStore) -> None:
    begun = await signed_up(logins)
    old = argon2.PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    await store.replace_password_hash(begun.user.user_id, begun.user.password_hash, old)
    await logins.log_in(email="ada@example.org", password=PASSWORD, project_id="", peer=PEER)
    renewed = await store.get_user(begun.user.user_id)
    assert "m=19456" in renewed.password_hash
    await logins.log_in(email="ada@example.org", password=PASSWORD, project_id="", peer=PEER)


async def test_a_session_is_renewed_until_it_ends(logins: Logins, clock: ManualClock) -> None:
    tokens = (await signed_up(logins)).tokens
    clock.advance(3000)
    renewed = await logins.refresh(tokens.refresh_token)
    assert renewed.refresh_expires_at_us == tokens.refresh_expires_at_us
    assert renewed.access.expires_at_us > tokens.access.expires_at_us
    clock.advance(600)
    with pytest.raises(Unauthenticated) as caught:
        await logins.refresh(renewed.refresh_token)
    assert caught.value.reason == "CREDENTIAL_EXPIRED"


async def test_a_stolen_refresh_token_ends_the_session_for_thief_and_owner(logins: Logins) -> None:
    stolen = (await signed_up(logins)).tokens.refresh_token
    owners = (await logins.refresh(stolen)).refresh_token
    for token, reason in ((stolen, "REFRESH_REUSED"), (owners, "CREDENTIAL_INVALID")):
        with pytest.raises(Unauthenticated) as caught:
            await logins.refresh(token)
        assert caught.value.reason == reason


async def test_after_log_out_nothing_is_renewed(logins: Logins) -> None:
    tokens = (await signed_up(logins)).tokens
    await logins.log_out(tokens.refresh_token)
    await logins.log_out("never heard of")
    with pytest.raises(Unauthenticated):
        await logins.refresh(tokens.refresh_token)
