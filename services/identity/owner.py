"""`python -m services.identity.owner`: for whoever installs llmlab on servers, the first account and its key.

It makes the owner's account and project where there is none, and prints a new API key as JSON on standard output. Keys
that it printed earlier are revoked, so it is also the way back in for somebody who can reach the database only.
"""

from __future__ import annotations

import asyncio
import json
import sys

from services.identity.bootstrap import new_owner_key
from services.identity.credentials import Credentials
from services.identity.keyring import Keyring, fixed_keys
from services.identity.settings import IdentitySettings
from services.identity.store import IdentityStore
from services.identity.wiring import rotation
from services.runtime.clock import SYSTEM_CLOCK
from services.runtime.errors import DomainError
from services.runtime.logs import redact
from services.runtime.service_database import open_service_database
from services.runtime.settings import SettingsError, load_settings


async def print_key() -> None:
    """Print the new credentials as JSON. Raises SettingsError, DomainError."""
    settings = load_settings(IdentitySettings)
    async with open_service_database(settings) as database:
        store = IdentityStore(database)
        keyring = Keyring(store, rotation(settings), SYSTEM_CLOCK, fixed=fixed_keys(settings.fixed_seeds))
        credentials = Credentials(
            store,
            keyring,
            SYSTEM_CLOCK,
            environment=settings.key_environment,
            max_keys_per_project=settings.max_keys_per_project,
        )
        await new_owner_key(store, credentials, SYSTEM_CLOCK, keep=_print)


async def _print(content: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Entry point; returns the exit status."""
    try:
        asyncio.run(print_key())
    except (SettingsError, DomainError) as error:
        sys.stderr.write(f"{redact(str(error))}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
