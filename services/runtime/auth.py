"""Credentials: who calls (Principal), how tokens are verified, and how services make their own.

Tokens are JWTs signed with Ed25519 (RFC 7519, RFC 8037). Identity signs those of users, API keys and delegations; every
service verifies them by itself with identity's public keys. A service signs its own with the key that the services
share (key id "service"); only such a token may be of type "service", and it is bound to one project as all others are.
While that key is changed there are several: the first signs, all are accepted.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.runtime.errors import DomainError, Unauthenticated, Unavailable
from services.runtime.settings import ServiceSettings, SettingsError

AUDIENCE = "llmlab"
ALGORITHM = "EdDSA"
SERVICE_KEY_ID = "service"
IDENTITY_ISSUER = "llmlab-identity"
SERVICE_ISSUER = "llmlab-services"
PERMISSIONS = frozenset({"READ", "WRITE", "CALL", "MANAGE", "SERVICE"})
"""Names of `llmlab.api.common.v1.Permission` that a credential can carry."""

MAX_TOKEN_BYTES = 8_192
# The one in use, the next one and the last one.
MAX_KEYS = 3
SERVICE_TOKEN_LIFE_S = 300
# A token is replaced this long before it expires, so that a call which starts now never carries a stale one.
SERVICE_TOKEN_RENEW_S = 60
# Clocks of two machines may differ by this much.
LEEWAY_S = 5

LOG_IN = "set LLMLAB_API_KEY, or send the token that `llmlab token` prints"

Kind = Literal["user", "service", "delegated"]
_KINDS = frozenset({"user", "service", "delegated"})
_KEY_PATTERN = re.compile("[0-9a-fA-F]{64}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the verified content of a credential, bound to exactly one project."""

    subject: str
    """The JWT subject: a user id, or a service's name."""
    project_id: str
    user_id: str = ""
    key_id: str = ""
    permissions: frozenset[str] = frozenset()
    kind: Kind = "user"
    delegation_id: str = ""
    expires_at: float = float("inf")
    """Unix seconds, UTC."""

    def may(self, permission: str) -> bool:
        """Whether the credential carries this permission ("READ", "CALL" ...)."""
        return permission in self.permissions


LOCAL_PRINCIPAL = Principal(subject="local", project_id="local", user_id="local", permissions=PERMISSIONS)
"""Who everybody is on a server with authentication switched off."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key of identity, by the `kid` of the tokens that it signed."""

    key_id: str
    public_key: bytes
    """32 bytes, raw Ed25519."""


FetchKeys = Callable[[], Awaitable[Iterable[SigningKey]]]
"""Asks identity for its signing keys; wired from IdentityService.ListSigningKeys, or from identity's own store."""


def secret_keys(settings: ServiceSettings, name: str) -> tuple[bytes, ...]:
    """The keys of 32 bytes that a setting holds: the first is in use, the others are accepted while keys are changed.

    SettingsError where there are more than MAX_KEYS, or one is malformed.
    """
    # A secret that was made from a file ends with a line break, and people set spaces after commas.
    text = "".join(getattr(settings, name).get_secret_value().split())
    parts = text.split(",") if text else []
    if len(parts) <= MAX_KEYS and all(_KEY_PATTERN.fullmatch(part) for part in parts):
        return tuple(bytes.fromhex(part) for part in parts)
    raise SettingsError(
        f"{settings.variable(name)}: must be 64 hexadecimal digits (`openssl rand -hex 32`), or up to {MAX_KEYS} "
        "such keys with commas between them"
    )


def service_private_keys(settings: ServiceSettings) -> tuple[Ed25519PrivateKey, ...]:
    """The keys that the services share: the first signs, all are accepted.

    SettingsError where one is malformed, and where there is none though authentication is on.
    """
    keys = secret_keys(settings, "auth_service_key")
    if not keys and settings.auth_required:
        variable = settings.variable("auth_service_key")
        raise SettingsError(f"{variable}: is not set; make a key for all services with `openssl rand -hex 32`")
    return tuple(Ed25519PrivateKey.from_private_bytes(key) for key in keys) or (Ed25519PrivateKey.generate(),)


class KeyRing:
    """Public keys by key id: the shared service keys, and identity's, fetched when an unknown id appears.

    Fetches are at least `refetch_s` apart, whatever the tokens say, and known keys survive while identity is down.
    """

    def __init__(self, service_keys: Sequence[Ed25519PublicKey], fetch: FetchKeys | None, *, refetch_s: float) -> None:
        self._service_keys = tuple(service_keys)
        self._fetch = fetch
        self._refetch_s = refetch_s
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._fetched_s = float("-inf")
        self._lock = asyncio.Lock()

    def get(self, key_id: str) -> tuple[Ed25519PublicKey, ...]:
        """The keys of that id which are at hand; several only of the services, while theirs is changed."""
        if key_id == SERVICE_KEY_ID:
            return self._service_keys
        return (self._keys[key_id],) if key_id in self._keys else ()

    async def find(self, key_id: str) -> tuple[Ed25519PublicKey, ...]:
        """The keys, after asking identity where the id is unknown; none: there is no such key.

        Raises Unavailable while no key at all could be fetched: then nobody can tell a bad token from a good one.
        """
        if key_id == SERVICE_KEY_ID or self._fetch is None:
            return self.get(key_id)
        async with self._lock:
            if not self.get(key_id) and time.monotonic() - self._fetched_s >= self._refetch_s:
                await self._refetch(self._fetch)
        if not self._keys:
            raise Unavailable(
                "DEPENDENCY_UNAVAILABLE",
                "the credential cannot be checked: identity's signing keys cannot be fetched; try again",
                retry_after_ms=int(self._refetch_s * 1_000),
            )
        return self.get(key_id)

    async def _refetch(self, fetch: FetchKeys) -> None:
        try:
            fetched = await fetch()
            self._keys = {item.key_id: Ed25519PublicKey.from_public_bytes(item.public_key) for item in fetched}
        except Exception as error:  # noqa: BLE001 (whatever keeps identity away, the known keys stay)
            _log.warning("the signing keys could not be fetched, %d known ones stay: %s", len(self._keys), error)
        self._fetched_s = time.monotonic()


class TokenVerifier:
    """Turns a bearer token into a Principal, or raises Unauthenticated with what to do next.

    Verified tokens are remembered by their hash until they expire, at most `cache_size` of them: checking a signature
    takes about 0.1 ms, a look-up 2 us.
    """

    def __init__(
        self,
        service_keys: Sequence[Ed25519PublicKey] = (),
        fetch_keys: FetchKeys | None = None,
        *,
        cache_size: int = 10_000,
        refetch_s: float = 5.0,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._keys = KeyRing(service_keys, fetch_keys, refetch_s=refetch_s)
        self._cache: OrderedDict[bytes, Principal] = OrderedDict()
        self._cache_size = cache_size
        self._now_s = now_s

    @classmethod
    def from_settings(cls, settings: ServiceSettings, fetch_keys: FetchKeys | None = None) -> TokenVerifier:
        """The verifier of a service: trusts the shared service keys and the keys that `fetch_keys` brings."""
        return cls(
            [key.public_key() for key in service_private_keys(settings)],
            fetch_keys,
            cache_size=settings.auth_token_cache_size,
            refetch_s=settings.auth_keys_refetch_s,
        )

    def cached(self, token: str) -> Principal | None:
        """The principal of a token that was verified before and is still valid; None: ask `verify`."""
        digest = _digest(token)
        principal = self._cache.get(digest)
        if principal is None:
            return None
        if principal.expires_at <= self._now_s():
            del self._cache[digest]
            raise expired()
        self._cache.move_to_end(digest)
        return principal

    async def verify(self, token: str) -> Principal:
        """Check signature, times, audience and type. Raises Unauthenticated; Unavailable while no key is at hand."""
        principal = self.cached(token)
        if principal is not None:
            return principal
        key_id = _key_id(token)
        keys = self._keys.get(key_id) or await self._keys.find(key_id)
        if not keys:
            raise _invalid("it was signed with a key that is not known here")
        principal = _principal(self._claims(token, keys), by_service=key_id == SERVICE_KEY_ID)
        self._remember(token, principal)
        return principal

    def check_not_expired(self, principal: Principal) -> None:
        """Raises Unauthenticated(CREDENTIAL_EXPIRED) once the credential's time is over; for long streams."""
        if principal.expires_at <= self._now_s():
            raise expired()

    def _claims(self, token: str, keys: Sequence[Ed25519PublicKey]) -> Mapping[str, Any]:
        """What a token says that one of `keys` signed. Raises Unauthenticated."""
        for key in keys:
            try:
                # Times are checked below, by this verifier's clock.
                claims: Mapping[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[ALGORITHM],
                    audience=AUDIENCE,
                    options={
                        "require": ["exp", "iat", "sub", "aud"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError as error:
                raise _invalid(str(error).lower()) from None
            self._check_times(claims)
            return claims
        if keys is self._keys.get(SERVICE_KEY_ID):
            raise Unauthenticated(
                "CREDENTIAL_INVALID",
                "the credential is not accepted: a service signed it with a key that is not known here; give all "
                "services the same LLMLAB_AUTH_SERVICE_KEY",
            )
        raise _invalid("signature verification failed")

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now_s = self._now_s()
        for name in ("exp", "iat", "nbf"):
            value = claims.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise _invalid(f"its {name} is not a number")
        if claims["exp"] <= now_s:
            raise expired()
        if max(claims["iat"], claims.get("nbf", 0)) > now_s + LEEWAY_S:
            raise _invalid("it is not valid yet; check this machine's clock")

    def _remember(self, token: str, principal: Principal) -> None:
        self._cache[_digest(token)] = principal
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


class ServiceTokenMinter:
    """Makes the tokens that a service shows to its peers: five minutes, one project, cached until a minute is left."""

    def __init__(
        self, service: str, key: Ed25519PrivateKey, *, max_cached: int = 10_000, now_s: Callable[[], float] = time.time
    ) -> None:
        self._service = service
        self._key = key
        self._now_s = now_s
        self._max_cached = max_cached
        self._tokens: OrderedDict[tuple[str, str, str, frozenset[str]], tuple[float, str]] = OrderedDict()

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> ServiceTokenMinter:
        """The minter of the service that `settings` belong to."""
        return cls(settings.service, service_private_keys(settings)[0])

    def token(
        self,
        project_id: str,
        *,
        user_id: str = "",
        key_id: str = "",
        permissions: Iterable[str] = ("SERVICE",),
    ) -> str:
        """A token for one project, on behalf of the user and key that are named; for `channel.call_metadata`."""
        request = (project_id, user_id, key_id, frozenset(permissions))
        cached = self._tokens.get(request)
        if cached is not None and cached[0] - SERVICE_TOKEN_RENEW_S > self._now_s():
            return cached[1]
        now_s = int(self._now_s())
        principal = Principal(
            subject=self._service,
            project_id=project_id,
            user_id=user_id,
            key_id=key_id,
            permissions=request[3],
            kind="service",
            expires_at=now_s + SERVICE_TOKEN_LIFE_S,
        )
        token = sign_token(principal, self._key, key_id=SERVICE_KEY_ID, issued_at=now_s)
        self._tokens[request] = (principal.expires_at, token)
        self._tokens.move_to_end(request)
        if len(self._tokens) > self._max_cached:
            self._tokens.popitem(last=False)
        return token


def sign_token(principal: Principal, key: Ed25519PrivateKey, *, key_id: str, issued_at: int) -> str:
    """The JWT that a TokenVerifier turns back into `principal`. `issued_at` is in Unix seconds."""
    claims = {
        "iss": SERVICE_ISSUER if key_id == SERVICE_KEY_ID else IDENTITY_ISSUER,
        "aud": AUDIENCE,
        "jti": secrets.token_urlsafe(16),
        "sub": principal.subject,
        "prj": principal.project_id,
        "usr": principal.user_id,
        "key": principal.key_id,
        "perm": sorted(principal.permissions),
        "typ": principal.kind,
        "dlg": principal.delegation_id,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": int(principal.expires_at),
    }
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": key_id, "typ": "JWT"})


def expired() -> DomainError:
    """The refusal of a credential whose time is over."""
    return Unauthenticated("CREDENTIAL_EXPIRED", f"the credential has expired; get a new one: {LOG_IN}")


def missing() -> DomainError:
    """The refusal of a call without a credential."""
    message = f"no credential was sent (metadata `authorization: Bearer <token>`); {LOG_IN}"
    return Unauthenticated("CREDENTIAL_MISSING", message)


def _invalid(why: str) -> DomainError:
    return Unauthenticated("CREDENTIAL_INVALID", f"the credential is not accepted: {why}; {LOG_IN}")


def _digest(token: str) -> bytes:
    # A hash, so that a dump of this process's memory holds no usable credentials.
    return hashlib.blake2b(token.encode(), digest_size=16).digest()


def _key_id(token: str) -> str:
    """The `kid` of the header. Nothing else of the header is obeyed: no `jku`, `jwk`, `x5u` and no other algorithm."""
    if len(token) > MAX_TOKEN_BYTES:
        raise _invalid("it is too long")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise _invalid("it is not a JWT") from None
    key_id = header.get("kid")
    if header.get("alg") != ALGORITHM or header.get("typ") != "JWT" or not isinstance(key_id, str) or not key_id:
        raise _invalid("its header must have typ JWT, alg EdDSA and a kid")
    return key_id


def _principal(claims: Mapping[str, Any], *, by_service: bool) -> Principal:
    kind, permissions = claims.get("typ"), claims.get("perm")
    if kind not in _KINDS or (kind == "service") != by_service:
        raise _invalid("its type does not fit the key that signed it")
    if not isinstance(permissions, list) or not all(isinstance(name, str) for name in permissions):
        raise _invalid("its permissions are not a list of names")
    texts = {name: claims.get(name, "") for name in ("sub", "prj", "usr", "key", "dlg")}
    if not all(isinstance(value, str) for value in texts.values()) or not texts["sub"]:
        raise _invalid("its claims are malformed")
    return Principal(
        subject=texts["sub"],
        project_id=texts["prj"],
        user_id=texts["usr"],
        key_id=texts["key"],
        permissions=PERMISSIONS.intersection(permissions),
        kind=kind,
        delegation_id=texts["dlg"],
        expires_at=float(claims["exp"]),
    )
