import asyncio
import base64
import itertools
import json
from collections.abc import Iterable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.runtime.auth import (
    MAX_KEYS,
    Principal,
    ServiceTokenMinter,
    SigningKey,
    TokenVerifier,
    service_private_keys,
    sign_token,
)
from services.runtime.errors import Unauthenticated, Unavailable
from services.runtime.settings import ServiceSettings, SettingsError

NOW_S = 1_800_000_000
SERVICE_KEY = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
IDENTITY_KEY = Ed25519PrivateKey.from_private_bytes(b"i" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
USER = Principal(
    subject="usr_1",
    project_id="prj_1",
    user_id="usr_1",
    key_id="key_1",
    permissions=frozenset({"READ", "CALL"}),
    kind="user",
    expires_at=NOW_S + 900,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


class Identity:
    """Publishes signing keys, or is down."""

    def __init__(self, **keys: Ed25519PrivateKey) -> None:
        self.keys = keys
        self.down = False
        self.fetches = 0

    async def fetch(self) -> Iterable[SigningKey]:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError("identity is down")
        return [SigningKey(key_id, public_bytes(key)) for key_id, key in self.keys.items()]


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def verifier_of(identity: Identity | None = None, clock: Clock | None = None, **options: Any) -> TokenVerifier:
    fetch = (identity or Identity(k1=IDENTITY_KEY)).fetch
    return TokenVerifier([SERVICE_KEY.public_key()], fetch, now_s=clock or Clock(), **options)


def user_token(principal: Principal = USER, key: Ed25519PrivateKey = IDENTITY_KEY, key_id: str = "k1") -> str:
    return sign_token(principal, key, key_id=key_id, issued_at=NOW_S)


def forged(header: dict[str, Any] | None = None, key: Any = IDENTITY_KEY, **claims: Any) -> str:
    good = jwt.decode(user_token(), options={"verify_signature": False})
    payload = {name: value for name, value in {**good, **claims}.items() if value is not ...}
    headers = {"kid": "k1", "typ": "JWT", **(header or {})}
    algorithm = headers.pop("alg", "EdDSA")
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers)


async def refusal(token: str, verifier: TokenVerifier | None = None, *, advice: str = "LLMLAB_API_KEY") -> str:
    with pytest.raises(Unauthenticated) as caught:
        await (verifier or verifier_of()).verify(token)
    assert advice in caught.value.message
    return caught.value.reason


async def test_a_token_becomes_the_principal_that_it_was_made_of() -> None:
    delegated = Principal(
        subject="usr_1", project_id="prj_1", permissions=frozenset({"CALL"}), kind="delegated", delegation_id="dlg_1",
        expires_at=NOW_S + 60,
    )  # fmt: skip

    assert await verifier_of().verify(user_token()) == USER
    assert await verifier_of().verify(user_token(delegated)) == delegated
    assert USER.may("READ")
    assert not USER.may("MANAGE")


async def test_a_service_token_needs_no_key_of_identity() -> None:
    token = ServiceTokenMinter("gateway", SERVICE_KEY, now_s=Clock()).token("prj_1", user_id="usr_1", key_id="key_1")
    principal = await TokenVerifier([SERVICE_KEY.public_key()], now_s=Clock()).verify(token)

    assert (principal.kind, principal.subject, principal.project_id) == ("service", "gateway", "prj_1")
    assert (principal.user_id, principal.key_id, principal.permissions) == ("usr_1", "key_1", frozenset({"SERVICE"}))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "abc",
        "a.b.c",
        "x" * 10_000,
        forged(aud="somebody"),
        forged(aud=...),
        forged(exp=...),
        forged(iat=...),
        forged(sub=...),
        forged(sub=""),
        forged(typ="refresh"),
        forged(typ=...),
        forged(perm="READ"),
        forged(perm=[1]),
        forged(prj=7),
        forged(iat=NOW_S + 60),
        forged(nbf=NOW_S + 60),
        forged(exp=True),
        forged(key=OTHER_KEY),
        forged({"kid": "unknown"}),
        forged({"typ": "refresh+jwt"}),
        forged({"alg": "HS256"}, key=public_bytes(IDENTITY_KEY)),
        forged({"alg": "none"}, key=None),
        # A key may say only what is its own: identity makes no service tokens, the service key nothing else.
        forged(typ="service"),
        forged({"kid": "service"}, key=SERVICE_KEY),
    ],
)
async def test_a_token_that_is_not_right_is_refused(token: str) -> None:
    assert await refusal(token) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u"])
async def test_a_token_cannot_bring_its_own_key(name: str) -> None:
    own = base64.urlsafe_b64encode(public_bytes(OTHER_KEY)).rstrip(b"=").decode()
    header = {name: {"kty": "OKP", "crv": "Ed25519", "x": own} if name == "jwk" else "https://evil.example/keys"}
    token = forged(header, key=OTHER_KEY)
    assert name in json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))

    assert await refusal(token) == "CREDENTIAL_INVALID"


async def test_an_expired_token_says_so_also_out_of_the_cache() -> None:
    clock = Clock()
    verifier = verifier_of(clock=clock)
    token = user_token()
    await verifier.verify(token)
    verifier.check_not_expired(USER)

    clock.now_s = USER.expires_at
    assert await refusal(token, verifier) == "CREDENTIAL_EXPIRED"
    assert await refusal(token, verifier) == "CREDENTIAL_EXPIRED"
    with pytest.raises(Unauthenticated):
        verifier.check_not_expired(USER)


async def test_permissions_that_nobody_knows_are_dropped() -> None:
    principal = await verifier_of().verify(forged(perm=["READ", "PUBLIC", "ROOT"]))

    assert principal.permissions == {"READ"}


async def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    verifier = verifier_of(cache_size=2)
    tokens = [forged(sub=f"usr_{number}") for number in range(3)]
    await verifier.verify(tokens[0])
    await verifier.verify(tokens[1])
    assert verifier.cached(tokens[0])
    await verifier.verify(tokens[2])

    assert [verifier.cached(token) is not None for token in tokens] == [True, False, True]


async def test_a_new_key_is_fetched_when_its_first_token_comes() -> None:
    identity = Identity(k1=IDENTITY_KEY)
    verifier = verifier_of(identity, refetch_s=0)
    await verifier.verify(user_token())
    identity.keys["k2"] = OTHER_KEY

    assert await verifier.verify(user_token(key=OTHER_KEY, key_id="k2")) == USER
    assert await verifier.verify(user_token()) == USER
    assert identity.fetches == 2


async def test_unknown_keys_make_no_storm_of_fetches() -> None:
    identity = Identity(k1=IDENTITY_KEY)
    verifier = verifier_of(identity, refetch_s=3_600)
    tokens = [user_token(key=OTHER_KEY, key_id=f"bad{number}") for number in range(20)]

    assert set(await asyncio.gather(*(refusal(token, verifier) for token in tokens))) == {"CREDENTIAL_INVALID"}
    assert identity.fetches == 1


async def test_known_keys_stay_while_identity_is_down() -> None:
    identity = Identity(k1=IDENTITY_KEY)
    verifier = verifier_of(identity, refetch_s=0)
    await verifier.verify(user_token())
    identity.down = True

    assert await refusal(user_token(key_id="k9"), verifier) == "CREDENTIAL_INVALID"
    assert await verifier.verify(forged(sub="usr_2")) != USER
    assert identity.fetches == 2


async def test_without_any_key_nobody_is_called_a_liar() -> None:
    identity = Identity(k1=IDENTITY_KEY)
    identity.down = True
    verifier = verifier_of(identity, refetch_s=3_600)

    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await verifier.verify(user_token())
        assert caught.value.reason == "DEPENDENCY_UNAVAILABLE"
    assert identity.fetches == 1


async def test_minted_tokens_are_kept_until_a_minute_is_left() -> None:
    clock = Clock()
    minter = ServiceTokenMinter("gateway", SERVICE_KEY, now_s=clock)
    first = minter.token("prj_1")
    clock.now_s += 239
    assert minter.token("prj_1") == first
    clock.now_s += 2
    second = minter.token("prj_1")

    assert second != first
    assert (await verifier_of(clock=clock).verify(second)).expires_at == clock.now_s + 300 - clock.now_s % 1


async def test_a_minted_token_is_for_one_project_person_and_set_of_permissions() -> None:
    minter = ServiceTokenMinter("gateway", SERVICE_KEY, now_s=Clock())
    tokens = [
        minter.token("prj_1"),
        minter.token("prj_2"),
        minter.token("prj_1", user_id="usr_1"),
        minter.token("prj_1", permissions=["READ"]),
    ]

    assert len(set(tokens)) == len(tokens)
    assert (await verifier_of().verify(tokens[3])).permissions == {"READ"}


def test_minted_tokens_are_bounded() -> None:
    minter = ServiceTokenMinter("gateway", SERVICE_KEY, now_s=Clock(), max_cached=2)
    for number in range(5):
        minter.token(f"prj_{number}")

    assert len(minter._tokens) == 2


def shared_keys(*seeds: bytes) -> ServiceSettings:
    return ServiceSettings(auth_service_key=",".join(seed.hex() for seed in seeds))


def test_the_service_key_comes_from_the_settings() -> None:
    (key,) = service_private_keys(shared_keys(b"s" * 32))

    assert public_bytes(key) == public_bytes(SERVICE_KEY)


@pytest.mark.parametrize("text", [f"{b's'.hex() * 32}\n", f" {b's'.hex() * 32} , {b't'.hex() * 32}"])
def test_white_space_around_keys_is_none_of_them(text: str) -> None:
    first, *_ = service_private_keys(ServiceSettings(auth_service_key=text))

    assert public_bytes(first) == public_bytes(SERVICE_KEY)


@pytest.mark.parametrize(
    "text", ["", "xyz", "ab" * 31, "ab" * 33, "ab" * 32 + " c", "ab" * 32 + ",", ",".join(["ab" * 32] * (MAX_KEYS + 1))]
)
def test_a_service_key_that_is_none_names_its_variable(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^LLMLAB_RUNTIME_AUTH_SERVICE_KEY: .*openssl rand -hex 32") as caught:
        service_private_keys(ServiceSettings(auth_service_key=text))
    assert not text or text not in str(caught.value)


async def test_the_shared_key_is_changed_in_three_steps_and_every_token_is_accepted_in_between() -> None:
    old, new = b"o" * 32, b"n" * 32
    steps = [shared_keys(old), shared_keys(old, new), shared_keys(new, old), shared_keys(new)]
    # Replicas of one step and of the next are there at the same time.
    for before, after in itertools.pairwise(steps):
        for caller, callee in ((before, after), (after, before)):
            token = ServiceTokenMinter.from_settings(caller).token("prj_1")
            assert (await TokenVerifier.from_settings(callee).verify(token)).kind == "service"


async def test_a_shared_key_that_was_left_out_is_not_accepted_any_more() -> None:
    token = ServiceTokenMinter.from_settings(shared_keys(b"o" * 32)).token("prj_1")
    verifier = TokenVerifier.from_settings(shared_keys(b"n" * 32, b"m" * 32))

    assert await refusal(token, verifier, advice="LLMLAB_AUTH_SERVICE_KEY") == "CREDENTIAL_INVALID"


def test_without_authentication_a_key_is_made_up() -> None:
    (one,), (two,) = (service_private_keys(ServiceSettings(auth_required=False)) for _ in range(2))

    assert public_bytes(one) != public_bytes(two)
