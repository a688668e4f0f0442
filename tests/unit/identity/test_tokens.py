"""Access tokens: claims, header, and the signature that others check."""

import jwt
import pytest

from services.identity import tokens
from services.identity.signing_keys import SigningKey
from services.identity.tokens import Subject

KEY = SigningKey(b"7" * 32, 0, 0)
OTHER = SigningKey(b"8" * 32, 0, 0)
NOW_US = 4_000_000_000_000_000  # The year 2096: a library that checks `exp` accepts it for long.


def decoded(text: str, key: SigningKey = KEY) -> dict[str, object]:
    public = key.private_key.public_key()
    claims: dict[str, object] = jwt.decode(
        text,
        public,
        algorithms=["EdDSA"],
        audience="llmlab",
        issuer="llmlab-identity",
        options={"verify_nbf": False, "verify_iat": False},
    )
    return claims


def test_the_claims_of_a_person() -> None:
    token = tokens.issue(Subject("usr_1", "prj_1", frozenset({"WRITE", "READ"})), KEY, now_us=NOW_US, life_s=900)
    claims = decoded(token.text)
    assert len(str(claims.pop("jti"))) >= 22
    assert claims == {
        "iss": "llmlab-identity",
        "aud": "llmlab",
        "sub": "usr_1",
        "prj": "prj_1",
        "usr": "usr_1",
        "key": "",
        "perm": ["READ", "WRITE"],
        "typ": "user",
        "dlg": "",
        "iat": 4_000_000_000,
        "nbf": 4_000_000_000,
        "exp": 4_000_000_900,
    }
    assert token.expires_at_us == 4_000_000_900 * 1_000_000
    assert jwt.get_unverified_header(token.text) == {"alg": "EdDSA", "kid": KEY.key_id, "typ": "JWT"}


def test_the_subject_of_a_key_and_of_a_delegation() -> None:
    key = Subject("usr_1", "prj_1", frozenset({"CALL"}), key_id="key_1")
    delegation = Subject("usr_1", "prj_1", frozenset({"CALL"}), key_id="key_1", delegation_id="dlg_1")
    of_key, of_delegation = (decoded(tokens.issue(s, KEY, now_us=NOW_US, life_s=9).text) for s in (key, delegation))
    assert (of_key["sub"], of_key["typ"], of_key["key"]) == ("key_1", "user", "key_1")
    assert (of_delegation["sub"], of_delegation["typ"], of_delegation["dlg"]) == ("dlg_1", "delegated", "dlg_1")
    assert of_delegation["key"] == "key_1"


def test_another_key_does_not_verify_it() -> None:
    token = tokens.issue(Subject("usr_1", "prj_1", frozenset()), KEY, now_us=NOW_US, life_s=900)
    with pytest.raises(jwt.InvalidSignatureError):
        decoded(token.text, OTHER)


def test_no_two_tokens_share_an_id() -> None:
    subject = Subject("usr_1", "prj_1", frozenset())
    ids = {decoded(tokens.issue(subject, KEY, now_us=NOW_US, life_s=900).text)["jti"] for _ in range(100)}
    assert len(ids) == 100
