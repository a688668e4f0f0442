"""Brand sets in the database. A set is told from the others of its project by its name and by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from services.orchestrator.brand_sets import BrandSetRecord
from services.orchestrator.store.tables import brand_sets, request_ids
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, ResourceExhausted
from services.runtime.requests import RememberedRequests, RequestKey

_RECORD = [brand_sets.c[name] for name in BrandSetRecord.__slots__]


class SqlBrandSets:
    """The brand sets of all projects; each method is one transaction."""

    def __init__(self, database: Database, *, max_per_project: int, max_setting: str) -> None:
        """`max_setting` is the variable to name where a project has too many."""
        self._database = database
        self._max_per_project = max_per_project
        self._max_setting = max_setting
        self._requests = RememberedRequests(database, request_ids)

    async def create(
        self,
        record: BrandSetRecord,
        encoded: bytes,
        *,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[BrandSetRecord], bytes],
    ) -> bytes:
        """The remembered answer about a new set, or about the set of the project that has this content already.

        Raises AlreadyExists where another content has the name, ResourceExhausted where the project has too many sets.
        """

        def write(connection: Connection) -> bytes:
            return self._requests.once(
                connection, key, payload, lambda: answer(self._create(connection, record, encoded))
            )

        return await self._database.write(write)

    def _create(self, connection: Connection, record: BrandSetRecord, encoded: bytes) -> BrandSetRecord:
        insert = self._database.upsert(brand_sets).values(asdict(record) | {"encoded": encoded})
        # The option is explained in `RememberedRequests`.
        done = connection.execute(insert.on_conflict_do_nothing(), execution_options={"preserve_rowcount": True})
        of_project = brand_sets.c.project_id == record.project_id
        if done.rowcount == 0:
            same_content = (of_project, brand_sets.c.content_hash == record.content_hash)
            known = connection.execute(select(*_RECORD).where(*same_content)).one_or_none()
            if known is None:
                message = (
                    f"The project has a brand set named {record.name!r} with other brands; "
                    "take another name, or update that set."
                )
                raise AlreadyExists("ALREADY_EXISTS", message)
            return BrandSetRecord(*known)
        count = connection.execute(select(func.count()).where(of_project)).scalar_one()
        if count > self._max_per_project:
            message = f"The project has {count - 1:,} brand sets already; delete one, or raise {self._max_setting}."
            raise ResourceExhausted("LIMIT_REACHED", message)
        return record

    async def get(self, project_id: str, brand_set_id: str) -> tuple[BrandSetRecord, bytes]:
        """A set with its encoded brands; NotFound for an unknown id and for another project's."""
        return await self._database.read(_get, project_id, brand_set_id)

    async def page(self, project_id: str, name: str, before_id: str, limit: int) -> list[BrandSetRecord]:
        """Newest first, older than `before_id` ("" for all), only the one of this name if one is given."""
        return await self._database.read(_page, project_id, name, before_id, limit)

    async def update(
        self,
        brand_set_id: str,
        change: Callable[[BrandSetRecord], BrandSetRecord],
        encoded: bytes | None,
        *,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[BrandSetRecord], bytes],
    ) -> bytes:
        """Change a set, with new brands where some are given, and remember the answer. `change` is pure.

        Raises NotFound as `get`, and AlreadyExists where another set of the project has the name or the content.
        """

        def write(connection: Connection) -> bytes:
            def do() -> bytes:
                record = change(_get(connection, key.project_id, brand_set_id, lock=True)[0])
                values: dict[str, Any] = asdict(record) | ({} if encoded is None else {"encoded": encoded})
                try:
                    connection.execute(update(brand_sets).where(*_own(key.project_id, brand_set_id)).values(values))
                except IntegrityError as error:
                    message = (
                        "Another brand set of the project has this name, or these brands; look at the list of sets."
                    )
                    raise AlreadyExists("ALREADY_EXISTS", message) from error
                return answer(record)

            return self._requests.once(connection, key, payload, do)

        return await self._database.write(write)

    async def delete(self, project_id: str, brand_set_id: str) -> None:
        """Remove a set; NotFound as in `get`."""

        def write(connection: Connection) -> None:
            _get(connection, project_id, brand_set_id, lock=True)
            connection.execute(delete(brand_sets).where(*_own(project_id, brand_set_id)))

        await self._database.write(write)


def _own(project_id: str, brand_set_id: str) -> tuple[ColumnElement[bool], ...]:
    return brand_sets.c.brand_set_id == brand_set_id, brand_sets.c.project_id == project_id


def _get(
    connection: Connection, project_id: str, brand_set_id: str, *, lock: bool = False
) -> tuple[BrandSetRecord, bytes]:
    query = select(*_RECORD, brand_sets.c.encoded).where(*_own(project_id, brand_set_id))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("brand_set", brand_set_id)
    *values, encoded = row
    return BrandSetRecord(*values), bytes(encoded)


def _page(connection: Connection, project_id: str, name: str, before_id: str, limit: int) -> list[BrandSetRecord]:
    query = select(*_RECORD).where(brand_sets.c.project_id == project_id)
    if name:
        query = query.where(brand_sets.c.name == name)
    if before_id:
        query = query.where(brand_sets.c.brand_set_id < before_id)
    rows = connection.execute(query.order_by(brand_sets.c.brand_set_id.desc()).limit(limit))
    return [BrandSetRecord(*row) for row in rows]
