"""What identity's store promises, on every database that it runs on."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from services.identity import store as schema
from services.identity.accounts import Membership, Project, Role, User
from services.identity.delegations import Delegation
from services.identity.keys import ApiKey
from services.identity.sessions import Outcome, Session
from services.identity.signing_keys import RotationPolicy, SigningKey, signing
from services.identity.store import IdentityStore
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, ResourceExhausted
from tests.support.databases import schema_differences

OpenDatabase = Callable[..., Awaitable[Database]]

S = 1_000_000
USER = User("usr_1", "ada@example.org", "Ada", "$argon2id$...", 1)
PROJECT = Project("prj_1", "default", 1)
OTHER_USER = User("usr_2", "grace@example.org", "Grace", "", 2)
OTHER_PROJECT = Project("prj_2", "default", 2)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(open_database: OpenDatabase, clock: ManualClock) -> Database:
    return await open_database("identity", migrations="services.identity.migrations", clock=clock)


@pytest.fixture
async def store(database: Database) -> IdentityStore:
    store = IdentityStore(database)
    await store.create_account(USER, PROJECT)
    await store.create_account(OTHER_USER, OTHER_PROJECT)
    return store


def session_of(clock: ManualClock, number: int = 1, life_s: int = 100) -> Session:
    now_us = clock.now_us()
    return Session(f"ses_{number:03}", "usr_1", "prj_1", now_us, now_us + life_s * S, 0)


def api_key(number: int = 1, project_id: str = "prj_1") -> ApiKey:
    return ApiKey(
        key_id=f"key_{number:03}",
        project_id=project_id,
        user_id="usr_1",
        name="laptop",
        prefix="llmlab_live_x",
        digest=bytes([number]) * 32,
        permissions=frozenset({"READ", "CALL"}),
        created_at_us=number,
        expires_at_us=0,
        revoked_at_us=0,
    )


def delegation(clock: ManualClock, delegation_id: str = "dlg_1") -> Delegation:
    now_us = clock.now_us()
    return Delegation(delegation_id, "prj_1", "usr_1", "key_001", "run_1", now_us, now_us + 100 * S, 0)


async def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    assert await schema_differences(database, schema.metadata) == []


async def test_an_account_is_found_by_address_and_by_id(store: IdentityStore) -> None:
    assert await store.find_user("ada@example.org") == USER
    assert await store.get_user("usr_1") == USER
    assert await store.get_project("prj_1") == PROJECT
    assert await store.find_user("nobody@example.org") is None
    for unknown in (store.get_user("usr_9"), store.get_project("prj_9")):
        with pytest.raises(NotFound):
            await unknown


async def test_an_address_is_taken_once_and_the_loser_leaves_nothing(store: IdentityStore) -> None:
    rivals = [(User(f"usr_1{n}", "eve@example.org", "Eve", "", 3), Project(f"prj_1{n}", "x", 3)) for n in range(4)]
    outcomes = await asyncio.gather(*(store.create_account(*rival) for rival in rivals), return_exceptions=True)
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 3
    winner = await store.find_user("eve@example.org")
    assert winner is not None
    for user, project in rivals:
        if user != winner:
            with pytest.raises(NotFound):
                await store.get_project(project.project_id)


async def test_a_new_account_owns_its_project_and_no_other(store: IdentityStore) -> None:
    assert await store.find_membership("usr_1", "") == Membership("prj_1", "usr_1", Role.OWNER)
    assert await store.find_membership("usr_1", "prj_1") == Membership("prj_1", "usr_1", Role.OWNER)
    assert await store.find_membership("usr_1", "prj_2") is None


async def test_a_hash_is_replaced_only_where_it_is_still_the_old_one(store: IdentityStore) -> None:
    await store.replace_password_hash("usr_1", "something else", "lost")
    await store.replace_password_hash("usr_1", USER.password_hash, "newer")
    assert await store.get_user("usr_1") == replace(USER, password_hash="newer")


async def test_a_refresh_token_works_once_and_its_reuse_ends_the_session(
    store: IdentityStore, clock: ManualClock
) -> None:
    session = session_of(clock)
    await store.begin_session(session, b"first", 10)
    assert await store.use_refresh_token(b"first", b"second") == (Outcome.RENEW, session)
    assert await store.use_refresh_token(b"second", b"third") == (Outcome.RENEW, session)
    assert (await store.use_refresh_token(b"first", b"fourth"))[0] is Outcome.REVOKE
    assert (await store.use_refresh_token(b"third", b"fifth"))[0] is Outcome.UNKNOWN
    assert (await store.use_refresh_token(b"fourth", b"sixth"))[0] is Outcome.UNKNOWN


async def test_of_simultaneous_uses_one_wins_and_the_session_ends(store: IdentityStore, clock: ManualClock) -> None:
    await store.begin_session(session_of(clock), b"first", 10)
    uses = (store.use_refresh_token(b"first", f"next{n}".encode()) for n in range(5))
    outcomes = [outcome for outcome, _ in await asyncio.gather(*uses)]
    assert outcomes.count(Outcome.RENEW) == 1
    assert outcomes.count(Outcome.REVOKE) == 1
    for number in range(5):
        outcome, _ = await store.use_refresh_token(f"next{number}".encode(), b"more")
        assert outcome is Outcome.UNKNOWN


async def test_a_session_ends_at_its_time_or_by_log_out(store: IdentityStore, clock: ManualClock) -> None:
    await store.begin_session(session_of(clock, 1), b"a", 10)
    await store.begin_session(session_of(clock, 2), b"b", 10)
    await store.end_session(b"b")
    await store.end_session(b"never heard of")
    assert (await store.use_refresh_token(b"b", b"c"))[0] is Outcome.UNKNOWN
    clock.advance(100)
    assert (await store.use_refresh_token(b"a", b"d"))[0] is Outcome.EXPIRED


async def test_beyond_the_limit_the_oldest_sessions_end(store: IdentityStore, clock: ManualClock) -> None:
    for number in range(5):
        await store.begin_session(session_of(clock, number), b"t%d" % number, 3)
    outcomes = [(await store.use_refresh_token(b"t%d" % n, b"n%d" % n))[0] for n in range(5)]
    assert outcomes == [Outcome.UNKNOWN] * 2 + [Outcome.RENEW] * 3


async def test_keys_are_found_listed_in_pages_and_kept_apart_by_project(store: IdentityStore) -> None:
    for number in (1, 2, 3):
        await store.add_api_key(api_key(number), 10)
    await store.add_api_key(api_key(4, "prj_2"), 10)
    assert await store.find_api_key("key_002") == api_key(2)
    assert await store.find_api_key("key_999") is None
    first = await store.list_api_keys("prj_1", "", 2)
    rest = await store.list_api_keys("prj_1", first[-1].key_id, 2)
    assert [*first, *rest] == [api_key(1), api_key(2), api_key(3)]


async def test_a_key_is_revoked_once_and_only_from_its_project(store: IdentityStore, clock: ManualClock) -> None:
    await store.add_api_key(api_key(), 10)
    with pytest.raises(NotFound):
        await store.revoke_api_key("prj_2", "key_001")
    revoked_at_us = clock.now_us()
    await store.revoke_api_key("prj_1", "key_001")
    clock.advance(5)
    await store.revoke_api_key("prj_1", "key_001")
    assert await store.find_api_key("key_001") == replace(api_key(), revoked_at_us=revoked_at_us)


async def test_a_project_has_at_most_so_many_unrevoked_keys(store: IdentityStore) -> None:
    adding = (store.add_api_key(api_key(number), 2) for number in range(1, 6))
    outcomes = await asyncio.gather(*adding, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, ResourceExhausted)]
    assert [error.reason for error in refused] == ["LIMIT_REACHED"] * 3
    (key, _) = await store.list_api_keys("prj_1", "", 10)
    await store.revoke_api_key("prj_1", key.key_id)
    await store.add_api_key(api_key(9), 2)


async def test_a_repeat_gives_the_same_delegation_while_it_lives(store: IdentityStore, clock: ManualClock) -> None:
    wanted = [delegation(clock, f"dlg_{number}") for number in range(4)]
    made = await asyncio.gather(*(store.create_delegation(one) for one in wanted))
    assert len({one.delegation_id for one in made}) == 1
    by_a_person = await store.create_delegation(replace(wanted[0], delegation_id="dlg_9", key_id=""))
    assert by_a_person.delegation_id == "dlg_9"
    await store.revoke_delegation("prj_1", made[0].delegation_id)
    again = await store.create_delegation(replace(wanted[0], delegation_id="dlg_10"))
    assert again.delegation_id == "dlg_10"


async def test_a_delegation_belongs_to_its_project(store: IdentityStore, clock: ManualClock) -> None:
    await store.create_delegation(delegation(clock))
    assert await store.get_delegation("prj_1", "dlg_1") == delegation(clock)
    for foreign in (store.get_delegation("prj_2", "dlg_1"), store.revoke_delegation("prj_2", "dlg_1")):
        with pytest.raises(NotFound):
            await foreign
    now_us = clock.now_us()
    for _ in range(2):
        await store.revoke_delegation("prj_1", "dlg_1")
        clock.advance(1)
    assert (await store.get_delegation("prj_1", "dlg_1")).revoked_at_us == now_us


async def test_signing_keys_follow_each_other_and_the_retired_go(store: IdentityStore, clock: ManualClock) -> None:
    policy = RotationPolicy(signs_s=1000, publish_ahead_s=100, token_life_s=50)
    seeds = (number.to_bytes(32, "big") for number in itertools.count(1))
    first = await store.rotate_signing_keys(policy, next(seeds))
    assert await store.rotate_signing_keys(policy, next(seeds)) == first
    seen: list[list[SigningKey]] = []
    signed: list[SigningKey | None] = []
    for _ in range(40):
        clock.advance(50)
        seen.append(await store.rotate_signing_keys(policy, next(seeds)))
        signed.append(signing(seen[-1], clock.now_us()))
    assert max(map(len, seen)) == 2
    assert first[0] not in seen[-1]
    assert len({key.key_id for keys in seen for key in keys}) == 3
    assert all(now_signing in keys for keys, now_signing in zip(seen, signed, strict=True))


async def test_replicas_that_start_together_share_one_key(store: IdentityStore) -> None:
    policy = RotationPolicy(signs_s=1000, publish_ahead_s=100, token_life_s=50)
    starts = (store.rotate_signing_keys(policy, bytes([number]) * 32) for number in range(5))
    first, *others = await asyncio.gather(*starts)
    assert len(first) == 1
    assert all(keys == first for keys in others)


async def test_what_ended_long_ago_is_forgotten_in_bounded_steps(store: IdentityStore, clock: ManualClock) -> None:
    for number in range(5):
        await store.begin_session(session_of(clock, number), b"t%d" % number, 10)
    await store.create_delegation(delegation(clock))
    assert await store.forget_ended(50, 3) == 0
    clock.advance(151)
    assert [await store.forget_ended(50, 3) for _ in range(3)] == [4, 2, 0]
    assert (await store.use_refresh_token(b"t0", b"n"))[0] is Outcome.UNKNOWN
