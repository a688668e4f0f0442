"""Identity's parts on a fresh SQLite database and a clock that the test moves."""

from collections.abc import AsyncIterator

import pytest

from services.identity.credentials import Credentials
from services.identity.keyring import Keyring
from services.identity.signing_keys import RotationPolicy
from services.identity.store import IdentityStore
from services.runtime.clock import ManualClock
from services.runtime.database import Database

POLICY = RotationPolicy(signs_s=100_000, publish_ahead_s=10_000, token_life_s=900)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(sqlite_url: str, clock: ManualClock) -> AsyncIterator[IdentityStore]:
    migrations = "services.identity.migrations"
    async with Database.open(sqlite_url, schema="identity", migrations=migrations, clock=clock) as database:
        yield IdentityStore(database)


@pytest.fixture
async def keyring(store: IdentityStore, clock: ManualClock) -> Keyring:
    keyring = Keyring(store, POLICY, clock)
    await keyring.renew()
    return keyring


@pytest.fixture
def credentials(store: IdentityStore, keyring: Keyring, clock: ManualClock) -> Credentials:
    return Credentials(store, keyring, clock, environment="test", max_keys_per_project=3)
