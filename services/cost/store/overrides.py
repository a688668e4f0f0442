"""Overrides of prices in the database. Each method is one transaction."""

from typing import Final

from sqlalchemy import Connection, bindparam, func, select, update

from services.cost.pricing.catalogue import PriceSource
from services.cost.pricing.overrides import Override, check_start
from services.cost.store.price_books import PriceBooks, override_of, row_of_override
from services.cost.store.projects import lock_project
from services.cost.store.tables import price_overrides, projects, request_ids
from services.runtime.database import Database
from services.runtime.errors import NotFound, ResourceExhausted
from services.runtime.requests import RememberedRequests, RequestKey

_REVISION: Final = select(projects.c.prices_revision).where(projects.c.project_id == bindparam("project_id"))
_RAISE: Final = (
    update(projects)
    .where(projects.c.project_id == bindparam("of_project"))
    .values(prices_revision=projects.c.prices_revision + 1)
    .returning(projects.c.prices_revision)
)


class OverrideStore:
    """A project's overrides. Each method is one transaction."""

    def __init__(self, database: Database, books: PriceBooks, *, max_per_project: int) -> None:
        """A project may have `max_per_project` overrides, ended ones counted: they are kept."""
        self._database = database
        self._books = books
        self._max_per_project = max_per_project
        self._remembered = RememberedRequests(database, request_ids)

    async def prices(self, project_id: str) -> PriceSource:
        """What a project is priced by now."""
        return await self._database.read(self._prices, project_id)

    def _prices(self, connection: Connection, project_id: str) -> PriceSource:
        revision = connection.execute(_REVISION, {"project_id": project_id}).scalar_one_or_none() or 0
        return self._books.of_project(connection, project_id, revision)

    async def create(self, key: RequestKey, payload: bytes, override: Override) -> Override:
        """Add an override; its creation time and revisions are set here, and its start where it is 0: now.

        Raises InvalidField for a start too far from now, and ResourceExhausted(LIMIT_REACHED) for one too many.
        """
        return await self._database.write(self._create, key, payload, override)

    def _create(self, connection: Connection, key: RequestKey, payload: bytes, override: Override) -> Override:
        def create() -> bytes:
            lock_project(connection, self._database, override.project_id)
            self._check_room(connection, override.project_id)
            now_us = self._database.now_us(connection)
            start_us = check_start(override.effective_us or now_us, now_us, "override.effective_from")
            revision = connection.execute(_RAISE, {"of_project": override.project_id}).scalar_one()
            row = row_of_override(override) | {
                "effective_us": start_us,
                "created_us": now_us,
                "created_revision": revision,
            }
            connection.execute(price_overrides.insert(), row)
            return override.override_id.encode()

        override_id = self._remembered.once(connection, key, payload, create).decode()
        return self._find(connection, key.project_id, override_id)

    async def page(self, project_id: str, *, after_id: str, limit: int) -> list[Override]:
        """At most `limit` overrides in the order of their creation, after the one named; ended ones too."""
        return await self._database.read(self._page, project_id, after_id, limit)

    def _page(self, connection: Connection, project_id: str, after_id: str, limit: int) -> list[Override]:
        columns = price_overrides.c
        after = (columns.project_id == project_id, columns.override_id > after_id)
        statement = select(price_overrides).where(*after).order_by(columns.override_id).limit(limit)
        return [override_of(row) for row in connection.execute(statement).mappings()]

    async def end(self, project_id: str, override_id: str) -> Override:
        """End an override now; one that has ended stays as it is. NotFound for another project's too."""
        return await self._database.write(self._end, project_id, override_id)

    def _end(self, connection: Connection, project_id: str, override_id: str) -> Override:
        lock_project(connection, self._database, project_id)
        found = self._find(connection, project_id, override_id)
        if found.ended_us is None:
            revision = connection.execute(_RAISE, {"of_project": project_id}).scalar_one()
            ended = {"ended_us": self._database.now_us(connection), "ended_revision": revision}
            own = price_overrides.c.override_id == override_id
            connection.execute(update(price_overrides).where(own).values(ended))
            found = self._find(connection, project_id, override_id)
        return found

    def _find(self, connection: Connection, project_id: str, override_id: str) -> Override:
        own = (price_overrides.c.override_id == override_id, price_overrides.c.project_id == project_id)
        row = connection.execute(select(price_overrides).where(*own)).mappings().one_or_none()
        if row is None:
            raise NotFound("price override", override_id)
        return override_of(row)

    def _check_room(self, connection: Connection, project_id: str) -> None:
        count = select(func.count()).select_from(price_overrides).where(price_overrides.c.project_id == project_id)
        if connection.execute(count).scalar_one() >= self._max_per_project:
            raise ResourceExhausted(
                "LIMIT_REACHED",
                f"The project has {self._max_per_project} price overrides, and they are kept for the past; raise "
                "LLMLAB_COST_MAX_PRICE_OVERRIDES_PER_PROJECT.",
            )
