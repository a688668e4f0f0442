"""On whose behalf a run acts: delegations of those who start it, resume it or retry it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.orchestrator.ports import Identity
from services.orchestrator.states import ENDED
from services.orchestrator.store import SqlLedger
from services.runtime.context import bearer_token, current_principal
from services.runtime.errors import DomainError, NotFound

_log = logging.getLogger(__name__)


class Delegations:
    """Makes delegations for runs, and ends those that no run uses."""

    def __init__(self, ledger: SqlLedger, identity: Identity) -> None:
        self._ledger = ledger
        self._identity = identity

    async def create(self, run_id: str) -> str:
        """A delegation of the caller's rights to a run; the one that is there where the caller gave it before."""
        return await self._identity.create_delegation(bearer_token(), run_id)

    @asynccontextmanager
    async def acting_for_caller(self, run_id: str) -> AsyncIterator[str]:
        """A delegation for the run to go on under; ended again where the run did not take it.

        What the run is given up by is ended at once, unless a worker still ends calls under it; then it expires.
        """
        project_id = current_principal().project_id
        before = await self._ledger.get_run(project_id, run_id)
        replaceable = before.delegation_id and not await self._ledger.is_worked_on(run_id)
        delegation_id = await self.create(run_id)
        try:
            yield delegation_id
        finally:
            await self.revoke_unless_used(project_id, run_id, delegation_id)
        if replaceable:
            await self.revoke_unless_used(project_id, run_id, before.delegation_id)

    async def revoke_unless_used(self, project_id: str, run_id: str, delegation_id: str) -> None:
        """End a delegation under which the run certainly does not act: it does not exist, has ended, or has another."""
        try:
            run = await self._ledger.get_run(project_id, run_id)
        except NotFound:
            await self._revoke(project_id, delegation_id)
        except DomainError as error:
            _log.warning("delegation %s stays until it expires: %s", delegation_id, error.message)
        else:
            if run.status in ENDED or run.delegation_id != delegation_id:
                await self._revoke(project_id, delegation_id)

    async def revoke_of_ended(self, project_id: str, run_id: str) -> None:
        """End the delegation of a run that has ended."""
        run = await self._ledger.get_run(project_id, run_id)
        if run.status in ENDED:
            await self._revoke(project_id, run.delegation_id)

    async def _revoke(self, project_id: str, delegation_id: str) -> None:
        """End a delegation. If this fails it ends by itself, later."""
        try:
            await self._identity.revoke_delegation(project_id, delegation_id)
        except DomainError as error:
            _log.warning("delegation %s stays until it expires: %s", delegation_id, error.message)
