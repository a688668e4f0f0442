"""Signing keys: ids, and a rotation in which verifiers always know the key that signs."""

from hypothesis import given
from hypothesis import strategies as st

from services.identity.signing_keys import (
    RotationPolicy,
    SigningKey,
    published,
    retires_at_us,
    signing,
    successor,
)

S = 1_000_000
NOW_US = 1_800_000_000 * S
POLICY = RotationPolicy(signs_s=1000, publish_ahead_s=100, token_life_s=50)

# RFC 8037, appendix A.1 and A.3.
RFC_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_key_id_is_the_thumbprint_of_rfc_8037() -> None:
    assert SigningKey(RFC_SEED, 0, 0).key_id == RFC_THUMBPRINT[:16]


def test_the_seed_is_not_shown() -> None:
    key = SigningKey(RFC_SEED, 0, 0)
    assert repr(RFC_SEED) not in repr(key)
    assert RFC_SEED.hex() not in repr(key)


def test_the_first_key_signs_at_once() -> None:
    first = successor([], POLICY, NOW_US, bytes(32))
    assert first is not None
    assert signing([first], NOW_US) is first
    assert successor([first], POLICY, NOW_US, bytes(32)) is None


def test_the_next_key_is_published_before_it_signs_and_the_last_until_its_tokens_expired() -> None:
    first = SigningKey(b"1" * 32, NOW_US, NOW_US + 1000 * S)
    assert successor([first], POLICY, NOW_US + 899 * S, b"2" * 32) is None
    second = successor([first], POLICY, NOW_US + 900 * S, b"2" * 32)
    assert second is not None
    keys = [first, second]
    assert signing(keys, NOW_US + 999 * S) is first
    assert published(keys, POLICY, NOW_US + 900 * S) == [first, second]
    assert signing(keys, NOW_US + 1000 * S) is second
    assert published(keys, POLICY, NOW_US + 1049 * S) == [second, first]
    assert published(keys, POLICY, NOW_US + 1050 * S) == [second]
    assert retires_at_us(first, POLICY) == NOW_US + 1050 * S


def test_a_key_that_an_operator_gave_has_no_end() -> None:
    key = SigningKey(b"1" * 32, 0, 0)
    assert signing([key], NOW_US) is key
    assert published([key], POLICY, NOW_US) == [key]
    assert retires_at_us(key, POLICY) == 0


def test_after_a_long_rest_a_new_key_signs_at_once() -> None:
    old = SigningKey(b"1" * 32, 0, S)
    assert signing([old], NOW_US) is None
    new = successor([old], POLICY, NOW_US, b"2" * 32)
    assert new is not None
    assert new.signs_from_us == NOW_US


@given(steps_s=st.lists(st.integers(min_value=1, max_value=99), min_size=1, max_size=120))
def test_whoever_saw_the_list_within_the_lead_knows_the_signing_key(steps_s: list[int]) -> None:
    keys: list[SigningKey] = []
    now_us = NOW_US
    seen_us: dict[str, int] = {}
    for number, step_s in enumerate(steps_s):
        new = successor(keys, POLICY, now_us, number.to_bytes(32, "big"))
        keys = [*keys, new] if new else keys
        for key in published(keys, POLICY, now_us):
            seen_us.setdefault(key.key_id, now_us)
        current = signing(keys, now_us)
        assert current is not None
        first_seen_us = seen_us[current.key_id]
        assert number == 0 or first_seen_us == NOW_US or first_seen_us < now_us
        now_us += step_s * S
