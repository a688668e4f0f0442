"""The identity service put together: settings in, running server out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from services.identity.bootstrap import FILE_NAME, ensure_owner
from services.identity.credentials import Credentials
from services.identity.keyring import Keyring, fixed_keys
from services.identity.logins import LoginPolicy, Logins
from services.identity.passwords import HashParameters, PasswordHasher
from services.identity.rpc import IdentityServicer
from services.identity.settings import IdentitySettings
from services.identity.signing_keys import RotationPolicy
from services.identity.store import IdentityStore
from services.identity.throttle import AttemptLimiter, Rate
from services.runtime.auth import FetchKeys, SigningKey, TokenVerifier
from services.runtime.clock import SYSTEM_CLOCK, Clock
from services.runtime.server import RunningServer, serve
from services.runtime.service_database import open_service_database
from services.runtime.settings import SettingsError
from services.runtime.tracing import open_tracing


@asynccontextmanager
async def build(settings: IdentitySettings, *, clock: Clock = SYSTEM_CLOCK) -> AsyncIterator[RunningServer]:
    """Runs identity until the context ends. Raises SettingsError, Unavailable (database)."""
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(open_tracing(settings))
        database = await stack.enter_async_context(open_service_database(settings))
        store = IdentityStore(database)
        keyring = Keyring(store, rotation(settings), clock, fixed=fixed_keys(settings.fixed_seeds))
        verifier = TokenVerifier.from_settings(settings, _own_keys(keyring)) if settings.auth_required else None
        await keyring.renew()
        credentials = Credentials(
            store,
            keyring,
            clock,
            environment=settings.key_environment,
            max_keys_per_project=settings.max_keys_per_project,
        )
        if settings.bootstrap_owner and settings.auth_required and settings.on_loopback:
            await _bootstrap(settings, store, credentials, clock)
        hasher = PasswordHasher(_hash_parameters(settings), max_waiting=settings.max_waiting_hashes)
        stack.push_async_callback(hasher.close)
        await stack.enter_async_context(_renewing(keyring, settings.renew_interval_s))
        servicer = IdentityServicer(store, _logins(settings, store, hasher, keyring, clock), credentials, keyring)
        yield await stack.enter_async_context(
            serve(
                settings,
                [servicer],
                verifier=verifier,
                checks={"database": database.check},
                features=[f"database:{database.dialect}"],
                tracer=tracer,
            )
        )


async def _bootstrap(settings: IdentitySettings, store: IdentityStore, credentials: Credentials, clock: Clock) -> None:
    try:
        await ensure_owner(store, credentials, clock, settings.home_directory)
    except OSError as error:
        file = settings.home_directory / FILE_NAME
        raise SettingsError(
            f"{settings.variable('home')}: {file} cannot be written: {error.strerror}; choose another home, or set "
            f"{settings.variable('bootstrap_owner')}=false"
        ) from None


def rotation(settings: IdentitySettings) -> RotationPolicy:
    """When signing keys are made and change. Raises SettingsError."""
    if settings.signing_key_ahead_s >= settings.signing_key_life_s:
        raise SettingsError(
            f"{settings.variable('signing_key_ahead_s')}: must be less than {settings.variable('signing_key_life_s')}"
        )
    return RotationPolicy(
        signs_s=settings.signing_key_life_s,
        publish_ahead_s=settings.signing_key_ahead_s,
        token_life_s=settings.access_token_life_s,
    )


def _hash_parameters(settings: IdentitySettings) -> HashParameters:
    return HashParameters(settings.argon2_time_cost, settings.argon2_memory_kib, settings.argon2_parallelism)


def _logins(
    settings: IdentitySettings, store: IdentityStore, hasher: PasswordHasher, keyring: Keyring, clock: Clock
) -> Logins:
    policy = LoginPolicy(
        session_life_s=settings.session_life_s,
        max_sessions_per_user=settings.max_sessions_per_user,
        sign_up_enabled=settings.sign_up_enabled,
    )
    by_email = Rate(settings.email_attempts, settings.email_attempt_interval_s)
    by_peer = Rate(settings.peer_attempts, settings.peer_attempt_interval_s)
    max_keys = settings.max_throttled_keys
    return Logins(
        store,
        hasher,
        keyring,
        policy,
        clock,
        by_email=AttemptLimiter(by_email, max_keys=max_keys, clock=clock),
        by_peer=AttemptLimiter(by_peer, max_keys=max_keys, clock=clock),
    )


def _own_keys(keyring: Keyring) -> FetchKeys:
    """Identity verifies with its own list, read anew at an unknown key id, for another replica may have added one."""

    async def fetch() -> list[SigningKey]:
        await keyring.renew()
        return [SigningKey(key_id=key.key_id, public_key=key.public_bytes) for key in keyring.published()]

    return fetch


@asynccontextmanager
async def _renewing(keyring: Keyring, interval_s: float) -> AsyncIterator[None]:
    task = asyncio.create_task(keyring.keep_renewing(interval_s), name="identity-renewal")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
