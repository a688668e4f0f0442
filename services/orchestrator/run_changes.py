"""What has changed in the runs of a project since somebody looked last: states, not events.

A watcher that reads slowly gets fewer states, each the latest; nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

from services.orchestrator.records import RunRecord
from services.orchestrator.states import ENDED

RUNS_MAX: Final = 1_000
"""Runs of one project that are looked at together."""


class RunStates(Protocol):
    """Where the runs' states are read."""

    async def newest_run(self, project_id: str) -> str:
        """The id of the project's newest run; empty where it has none."""
        ...

    async def live_runs(
        self, project_id: str, experiment_id: str, after_id: str, known: Collection[str], limit: int
    ) -> list[RunRecord]:
        """Runs that go on, runs newer than `after_id`, and those of `known` that exist, oldest first."""
        ...


class RunChanges:
    """One watcher's view of a project's runs."""

    def __init__(self, states: RunStates, project_id: str, experiment_id: str) -> None:
        """`experiment_id`: only its runs; empty for all."""
        self._states = states
        self._project_id = project_id
        self._experiment_id = experiment_id
        self._newest = ""
        self._seen: dict[str, RunRecord] = {}

    async def first(self) -> list[RunRecord]:
        """The runs that go on now, oldest first."""
        self._newest = await self._states.newest_run(self._project_id)
        return await self._look()

    async def changed(self) -> list[RunRecord]:
        """The runs that have begun or changed since the last look, as they are now, oldest first."""
        return await self._look()

    async def _look(self) -> list[RunRecord]:
        found = await self._states.live_runs(
            self._project_id, self._experiment_id, self._newest, list(self._seen), RUNS_MAX
        )
        changed = [run for run in found if self._seen.get(run.run_id) != run]
        # A run that has ended is told of once more, with its end, and then forgotten.
        self._seen = {run.run_id: run for run in found if run.status not in ENDED}
        self._newest = max([self._newest, *(run.run_id for run in found)])
        return changed
