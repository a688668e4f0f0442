"""Credentials for programs: API keys, and the delegations of runs."""

from services.identity import delegations, keys
from services.identity.accounts import checked_name, granted
from services.identity.delegations import DEFAULT_LIFE_S, DELEGATED_PERMISSIONS, Delegation
from services.identity.keyring import Keyring
from services.identity.keys import ApiKey
from services.identity.store import IdentityStore
from services.identity.tokens import AccessToken, Subject
from services.runtime.auth import Principal
from services.runtime.clock import Clock
from services.runtime.errors import PermissionDenied, Unauthenticated
from services.runtime.ids import new_id


class Credentials:
    """API keys and delegations of a project. ``environment`` stands in the text of new keys, for example "live"."""

    def __init__(
        self, store: IdentityStore, keyring: Keyring, clock: Clock, *, environment: str, max_keys_per_project: int
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._clock = clock
        self._environment = environment
        self._max_keys = max_keys_per_project

    async def create_api_key(
        self, caller: Principal, *, name: str, permissions: frozenset[str], expires_in_s: int
    ) -> tuple[ApiKey, str]:
        """Makes a key for the caller's project and gives its text, which cannot be had again; 0 s means no expiry.

        Raises InvalidField, PermissionDenied (more than the caller has), ResourceExhausted (too many keys).
        """
        _require_person(caller)
        now_us = self._clock.now_us()
        key_id = new_id("key")
        minted = keys.mint(self._environment, key_id)
        key = ApiKey(
            key_id=key_id,
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=checked_name("name", name),
            prefix=minted.prefix,
            digest=minted.digest,
            permissions=granted(permissions, caller.permissions),
            created_at_us=now_us,
            expires_at_us=now_us + expires_in_s * 1_000_000 if expires_in_s else 0,
            revoked_at_us=0,
        )
        await self._store.add_api_key(key, self._max_keys)
        return key, minted.text

    async def list_api_keys(self, caller: Principal, *, after_key_id: str, limit: int) -> list[ApiKey]:
        """The project's keys in the order of their making, those after ``after_key_id``."""
        return await self._store.list_api_keys(caller.project_id, after_key_id, limit)

    async def revoke_api_key(self, caller: Principal, key_id: str) -> None:
        """Ends a key of the caller's project. Raises NotFound."""
        await self._store.revoke_api_key(caller.project_id, key_id)

    async def exchange_api_key(self, text: str) -> AccessToken:
        """An access token for a key. It allows what the key does, and no more than its maker still may.

        Raises Unauthenticated.
        """
        now_us = self._clock.now_us()
        key = keys.check(text, await self._store.find_api_key(keys.key_id_of(text)), now_us)
        permissions = await self._held(key.user_id, key.project_id, key)
        if not permissions:
            raise Unauthenticated("CREDENTIAL_INVALID", "The key's maker has left the project; ask for another key.")
        return self._keyring.issue(Subject(key.user_id, key.project_id, permissions, key_id=key.key_id))

    async def create_delegation(self, caller: Principal, *, purpose: str, expires_in_s: int) -> Delegation:
        """Lets ``purpose`` (a run's id) call models for the caller; a repeat gives the same. 0 s means 30 days."""
        _require_person(caller)
        now_us = self._clock.now_us()
        wanted = Delegation(
            delegation_id=new_id("dlg"),
            project_id=caller.project_id,
            user_id=caller.user_id,
            key_id=caller.key_id,
            purpose=purpose,
            created_at_us=now_us,
            expires_at_us=now_us + (expires_in_s or DEFAULT_LIFE_S) * 1_000_000,
            revoked_at_us=0,
        )
        return await self._store.create_delegation(wanted)

    async def issue_delegated_token(self, project_id: str, delegation_id: str) -> AccessToken:
        """An access token under a delegation of the project. Raises NotFound, WrongState (DELEGATION_ENDED)."""
        delegation = await self._store.get_delegation(project_id, delegation_id)
        key = await self._store.find_api_key(delegation.key_id) if delegation.key_id else None
        held = await self._held(delegation.user_id, project_id, key)
        if delegation.key_id and key is None:
            held = frozenset()
        delegations.check(delegation, held, self._clock.now_us())
        return self._keyring.issue(
            Subject(
                user_id=delegation.user_id,
                project_id=project_id,
                permissions=DELEGATED_PERMISSIONS,
                key_id=delegation.key_id,
                delegation_id=delegation_id,
            )
        )

    async def revoke_delegation(self, project_id: str, delegation_id: str) -> None:
        """Ends a delegation of the project, once. Raises NotFound."""
        await self._store.revoke_delegation(project_id, delegation_id)

    async def _held(self, user_id: str, project_id: str, key: ApiKey | None) -> frozenset[str]:
        """What a person, through one of their keys or directly, may do in the project today."""
        membership = await self._store.find_membership(user_id, project_id)
        role_permissions = membership.role.permissions if membership else frozenset[str]()
        if key is None:
            return role_permissions
        return role_permissions & key.permissions if key.is_live(self._clock.now_us()) else frozenset()


def _require_person(caller: Principal) -> None:
    if not caller.user_id:
        raise PermissionDenied("PERMISSION_DENIED", "Only a person or an API key may do this, not a service.")
