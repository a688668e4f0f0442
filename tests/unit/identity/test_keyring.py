"""The keyring: keys from the store or from the operator, renewed over time."""

import pytest

from services.identity.keyring import Keyring, fixed_keys
from services.identity.signing_keys import RotationPolicy
from services.identity.store import IdentityStore
from services.identity.tokens import Subject
from services.runtime.clock import ManualClock
from services.runtime.errors import Unavailable

POLICY = RotationPolicy(signs_s=1_000, publish_ahead_s=100, token_life_s=900)
SUBJECT = Subject("usr_1", "prj_1", frozenset({"READ"}))


async def test_it_signs_after_a_restart_with_the_key_of_before(store: IdentityStore, clock: ManualClock) -> None:
    first, second = Keyring(store, POLICY, clock), Keyring(store, POLICY, clock)
    await first.renew()
    await second.renew()
    assert [key.key_id for key in first.published()] == [key.key_id for key in second.published()]
    assert first.issue(SUBJECT).expires_at_us == clock.now_us() // 1_000_000 * 1_000_000 + 900 * 1_000_000


async def test_the_next_key_shows_before_it_signs(store: IdentityStore, clock: ManualClock) -> None:
    keyring = Keyring(store, POLICY, clock)
    await keyring.renew()
    (first,) = keyring.published()
    clock.advance(950)
    await keyring.renew()
    current, coming = keyring.published()
    assert current.key_id == first.key_id
    clock.advance(50)
    assert [key.key_id for key in keyring.published()] == [coming.key_id, first.key_id]


async def test_without_a_renewal_it_stops_to_sign_instead_of_signing_with_an_old_key(
    store: IdentityStore, clock: ManualClock
) -> None:
    keyring = Keyring(store, POLICY, clock)
    with pytest.raises(Unavailable):
        keyring.issue(SUBJECT)
    await keyring.renew()
    clock.advance(1_000)
    with pytest.raises(Unavailable):
        keyring.issue(SUBJECT)
    await keyring.renew()
    keyring.issue(SUBJECT)


async def test_of_the_operators_keys_the_first_signs_and_all_are_published(
    store: IdentityStore, clock: ManualClock
) -> None:
    keys = fixed_keys([b"1" * 32, b"2" * 32])
    keyring = Keyring(store, POLICY, clock, fixed=keys)
    await keyring.renew()
    clock.advance(10_000)
    assert keyring.published() == keys
    keyring.issue(SUBJECT)
