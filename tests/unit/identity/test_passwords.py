"""Passwords: lengths, Unicode, rehashing, unknown accounts, and the bounded queue."""

import asyncio
import unicodedata
from collections.abc import AsyncIterator

import argon2
import pytest

from services.identity.passwords import HashParameters, PasswordHasher, checked
from services.runtime.errors import InvalidField, ResourceExhausted


@pytest.fixture
async def hasher() -> AsyncIterator[PasswordHasher]:
    hasher = PasswordHasher(HashParameters(), max_waiting=8)
    yield hasher
    await hasher.close()


async def test_a_hash_is_argon2id_with_at_least_the_recommended_cost(hasher: PasswordHasher) -> None:
    parameters = argon2.extract_parameters(await hasher.hash("correct horse"))
    assert parameters.type is argon2.Type.ID
    assert (parameters.time_cost, parameters.parallelism) == (2, 1)
    assert parameters.memory_cost >= 19 * 1024


async def test_only_the_right_password_matches(hasher: PasswordHasher) -> None:
    stored = await hasher.hash("correct horse")
    assert (await hasher.verify("correct horse", stored)).matches
    assert not (await hasher.verify("correct horsf", stored)).matches


async def test_every_character_of_a_long_password_counts(hasher: PasswordHasher) -> None:
    stored = await hasher.hash("x" * 1023 + "a")
    assert (await hasher.verify("x" * 1023 + "a", stored)).matches
    assert not (await hasher.verify("x" * 1023 + "b", stored)).matches
    assert not (await hasher.verify("x" * 1023 + "ab", stored)).matches


async def test_composed_and_decomposed_letters_are_the_same_password(hasher: PasswordHasher) -> None:
    stored = await hasher.hash(unicodedata.normalize("NFC", "Zürich-Café"))
    assert (await hasher.verify(unicodedata.normalize("NFD", "Zürich-Café"), stored)).matches


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_a_password_of_bad_length_is_refused_by_name(password: str) -> None:
    with pytest.raises(InvalidField) as caught:
        checked(password)
    assert caught.value.field == "password"


async def test_an_account_without_password_never_matches_not_even_the_decoy(hasher: PasswordHasher) -> None:
    verification = await hasher.verify("no account has this password", "")
    assert not verification.matches
    assert not verification.needs_rehash


async def test_a_damaged_hash_does_not_match(hasher: PasswordHasher) -> None:
    assert not (await hasher.verify("correct horse", "not a PHC string")).matches


async def test_other_parameters_ask_for_a_new_hash(hasher: PasswordHasher) -> None:
    older = argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash("correct horse")
    assert (await hasher.verify("correct horse", older)).needs_rehash
    assert not (await hasher.verify("correct horse", await hasher.hash("correct horse"))).needs_rehash


async def test_the_queue_is_bounded_and_the_rest_is_refused() -> None:
    hasher = PasswordHasher(HashParameters(), max_waiting=1)
    try:
        outcomes = await asyncio.gather(*(hasher.hash("correct horse") for _ in range(8)), return_exceptions=True)
    finally:
        await hasher.close()
    refused = [outcome for outcome in outcomes if isinstance(outcome, ResourceExhausted)]
    assert refused
    assert {error.reason for error in refused} == {"OVERLOADED"}
    assert any(isinstance(outcome, str) for outcome in outcomes)
