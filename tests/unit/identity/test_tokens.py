"""Access tokens: what a verifier of any service reads out of them."""

import jwt
import pytest

from services.identity import tokens
from services.identity.signing_keys import SigningKey
from services.identity.tokens import AccessToken, Subject
from services.runtime import auth
from services.runtime.auth import Principal, TokenVerifier
from services.runtime.errors import Unauthenticated

KEY = SigningKey(b"7" * 32, 0, 0)
OTHER = SigningKey(b"8" * 32, 0, 0)
NOW_S = 1_800_000_000
PERSON = Subject("usr_1", "prj_1", frozenset({"WRITE", "READ"}))


def issued(subject: Subject) -> AccessToken:
    return tokens.issue(subject, KEY, now_us=NOW_S * 1_000_000 + 999_999, life_s=900)


async def verified(token: AccessToken, *, now_s: float = NOW_S, by: SigningKey = KEY) -> Principal:
    async def fetch() -> list[auth.SigningKey]:
        return [auth.SigningKey(KEY.key_id, by.public_bytes)]

    return await TokenVerifier(fetch_keys=fetch, now_s=lambda: now_s).verify(token.text)


async def test_a_person() -> None:
    assert await verified(issued(PERSON)) == Principal(
        subject="usr_1",
        project_id="prj_1",
        user_id="usr_1",
        permissions=frozenset({"READ", "WRITE"}),
        kind="user",
        expires_at=NOW_S + 900,
    )


async def test_a_key_and_a_delegation() -> None:
    of_key = await verified(issued(Subject("usr_1", "prj_1", frozenset({"CALL"}), key_id="key_1")))
    of_delegation = await verified(
        issued(Subject("usr_1", "prj_1", frozenset({"CALL"}), key_id="key_1", delegation_id="dlg_1"))
    )
    assert (of_key.kind, of_key.key_id, of_key.delegation_id) == ("user", "key_1", "")
    assert (of_delegation.kind, of_delegation.key_id, of_delegation.delegation_id) == ("delegated", "key_1", "dlg_1")


async def test_it_ends_when_it_says() -> None:
    token = issued(PERSON)
    assert token.expires_at_us == (NOW_S + 900) * 1_000_000
    await verified(token, now_s=NOW_S + 899)
    with pytest.raises(Unauthenticated) as caught:
        await verified(token, now_s=NOW_S + 900)
    assert caught.value.reason == "CREDENTIAL_EXPIRED"


async def test_another_key_does_not_verify_it() -> None:
    with pytest.raises(Unauthenticated) as caught:
        await verified(issued(PERSON), by=OTHER)
    assert caught.value.reason == "CREDENTIAL_INVALID"


def test_the_header_names_the_key_and_the_claims_the_registered_ones() -> None:
    token = issued(PERSON).text
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": KEY.key_id, "typ": "JWT"}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["iss"] == "llmlab-identity"
    assert claims["aud"] == "llmlab"
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (NOW_S, NOW_S, NOW_S + 900)


def test_no_two_tokens_share_an_id() -> None:
    ids = {jwt.decode(issued(PERSON).text, options={"verify_signature": False})["jti"] for _ in range(100)}
    assert len(ids) == 100
