"""The budgets of each project, remembered until they change: every hold asks for them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, select

from services.cost.budgets import Budget
from services.cost.store.rows import budget_of
from services.cost.store.tables import budgets
from services.runtime.database import Database

WHOLE_MAX: Final = 100
"""Budgets of a project that are remembered together; of one with more, those at the anchors that are asked for."""
PROJECTS_CACHED_MAX: Final = 500
"""Projects that are remembered; one more makes the cache forget them all and begin again."""
ANCHORS_CACHED_MAX: Final = 50_000
"""Anchors, of all projects with many budgets; one more makes the cache forget them all and begin again."""

_UNKNOWN: Final[Mapping[str, Sequence[Budget]]] = {}


class BudgetBooks:
    """Budgets by their anchors, as they are in the revision that a transaction has read."""

    def __init__(self, database: Database) -> None:
        self._load = select(budgets).where(
            budgets.c.project_id == bindparam("project_id"), database.among(budgets.c.anchor, "anchors")
        )
        self._load_whole = (
            select(budgets).where(budgets.c.project_id == bindparam("project_id")).limit(bindparam("at_most"))
        )
        self._wholes: dict[tuple[str, int], Mapping[str, Sequence[Budget]] | None] = {}
        self._cached: dict[tuple[str, int, str], Sequence[Budget]] = {}

    def at_anchors(
        self, connection: Connection, project_id: str, revision: int, anchors: Collection[str]
    ) -> Mapping[str, Sequence[Budget]]:
        """The budgets at each of the anchors that has some, and perhaps at others. Safe in any thread."""
        if revision == 0:
            return {}
        whole = self._whole(connection, project_id, revision)
        if whole is not None:
            return whole
        found: dict[str, Sequence[Budget]] = {}
        missing: dict[str, list[Budget]] = {}
        for anchor in anchors:
            known = self._cached.get((project_id, revision, anchor))
            if known is None:
                missing[anchor] = []
            elif known:
                found[anchor] = known
        if missing:
            named = {"project_id": project_id, "anchors": list(missing)}
            for row in connection.execute(self._load, named).mappings():
                missing[row["anchor"]].append(budget_of(row))
            if len(self._cached) + len(missing) > ANCHORS_CACHED_MAX:
                self._cached.clear()
            self._cached.update({(project_id, revision, anchor): some for anchor, some in missing.items()})
            found.update({anchor: some for anchor, some in missing.items() if some})
        return found

    def _whole(self, connection: Connection, project_id: str, revision: int) -> Mapping[str, Sequence[Budget]] | None:
        """All budgets of a project by their anchors; None where they are too many."""
        key = (project_id, revision)
        known = self._wholes.get(key, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        named = {"project_id": project_id, "at_most": WHOLE_MAX + 1}
        found = [budget_of(row) for row in connection.execute(self._load_whole, named).mappings()]
        by_anchor: dict[str, list[Budget]] = {}
        for budget in found:
            by_anchor.setdefault(budget.scope.anchor, []).append(budget)
        if len(self._wholes) >= PROJECTS_CACHED_MAX:
            self._wholes.clear()
        whole = self._wholes[key] = by_anchor if len(found) <= WHOLE_MAX else None
        return whole
