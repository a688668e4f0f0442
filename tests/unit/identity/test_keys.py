"""API keys: their text, their checksum, and what opens which row."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity import keys
from services.identity.keys import ApiKey
from services.runtime.errors import InvalidField, Unauthenticated
from services.runtime.ids import new_id

NOW_US = 1_800_000_000_000_000


def minted() -> tuple[str, ApiKey]:
    key_id = new_id("key")
    key = keys.mint("live", key_id)
    stored = ApiKey(
        key_id=key_id,
        project_id="prj_1",
        user_id="usr_1",
        name="laptop",
        prefix=key.prefix,
        digest=key.digest,
        permissions=frozenset({"READ"}),
        created_at_us=NOW_US,
        expires_at_us=0,
        revoked_at_us=0,
    )
    return key.text, stored


def test_a_key_names_its_row_and_opens_it() -> None:
    text, stored = minted()
    assert re.fullmatch(r"llmlab_live_[0-9a-z]{26}_[0-9A-Za-z]{49}", text)
    assert keys.key_id_of(text) == stored.key_id
    assert keys.check(text, stored, NOW_US) is stored


def test_what_is_stored_does_not_hold_the_secret() -> None:
    text, stored = minted()
    secret = text.rsplit("_", 1)[1]
    assert secret not in repr(stored)
    assert len(stored.digest) == 32
    assert text.startswith(stored.prefix)


def test_two_keys_never_share_a_secret() -> None:
    assert len({minted()[0].rsplit("_", 1)[1] for _ in range(500)}) == 500


@given(position=st.integers(min_value=0, max_value=87), character=st.sampled_from("0aZ_ \u00e9"))
def test_a_single_wrong_character_is_noticed_before_the_database(position: int, character: str) -> None:
    text = keys.mint("live", "key_01k9x3m8q2v7w5t4r6s0n1p8ab").text
    damaged = text[:position] + character + text[position + 1 :]
    if damaged == text:
        return
    with pytest.raises(Unauthenticated) as caught:
        keys.key_id_of(damaged)
    assert caught.value.reason == "CREDENTIAL_INVALID"


@given(st.text(max_size=200))
def test_arbitrary_text_is_no_key(text: str) -> None:
    with pytest.raises(Unauthenticated):
        keys.key_id_of(text)


def test_a_key_does_not_open_another_row() -> None:
    text, _ = minted()
    _, other = minted()
    for stored in (other, None):
        with pytest.raises(Unauthenticated) as caught:
            keys.check(text, stored, NOW_US)
        assert caught.value.reason == "CREDENTIAL_INVALID"


def test_a_revoked_key_is_refused() -> None:
    text, stored = minted()
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.check(text, replace(stored, revoked_at_us=NOW_US), NOW_US)


def test_a_key_ends_at_its_expiry() -> None:
    text, stored = minted()
    expiring = replace(stored, expires_at_us=NOW_US)
    keys.check(text, expiring, NOW_US - 1)
    with pytest.raises(Unauthenticated) as caught:
        keys.check(text, expiring, NOW_US)
    assert caught.value.reason == "CREDENTIAL_EXPIRED"


@pytest.mark.parametrize("environment", ["", "Live", "a_b", "x" * 17])
def test_an_environment_that_would_break_the_format_is_refused(environment: str) -> None:
    with pytest.raises(InvalidField):
        keys.mint(environment, "key_1")
