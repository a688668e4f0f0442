"""Resources in the database. One is told from the others of its kind and project by its name and by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from services.orchestrator.resources import BRAND_SET, DATASET, PROMPT, ResourceKind, ResourceRecord
from services.orchestrator.store import tables as t
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, ResourceExhausted
from services.runtime.requests import RememberedRequests, RequestKey

_TABLES = {BRAND_SET: t.brand_sets, PROMPT: t.prompts, DATASET: t.datasets}


class SqlResources:
    """The resources of one kind of all projects; each method is one transaction."""

    def __init__(self, database: Database, kind: ResourceKind, *, max_per_project: int, max_setting: str) -> None:
        """`max_setting` is the variable to name where a project has too many."""
        self.kind = kind
        self._database = database
        self._table: Table = _TABLES[kind]
        self._record = [self._table.c[name] for name in ResourceRecord.__slots__]
        self._max_per_project = max_per_project
        self._max_setting = max_setting
        self._requests = RememberedRequests(database, t.request_ids)

    async def create(
        self,
        record: ResourceRecord,
        encoded: bytes,
        *,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[ResourceRecord], bytes],
    ) -> bytes:
        """The remembered answer about a new one, or about the one of the project that has this content already.

        Raises AlreadyExists where another content has the name, ResourceExhausted where the project has too many.
        """

        def write(connection: Connection) -> bytes:
            return self._requests.once(
                connection, key, payload, lambda: answer(self._create(connection, record, encoded))
            )

        return await self._database.write(write)

    def _create(self, connection: Connection, record: ResourceRecord, encoded: bytes) -> ResourceRecord:
        columns, noun = self._table.c, self.kind.noun
        insert = self._database.upsert(self._table).values(asdict(record) | {"encoded": encoded})
        # The option is explained in `RememberedRequests`.
        done = connection.execute(insert.on_conflict_do_nothing(), execution_options={"preserve_rowcount": True})
        of_project = columns.project_id == record.project_id
        if done.rowcount == 0:
            same_content = (of_project, columns.content_hash == record.content_hash)
            known = connection.execute(select(*self._record).where(*same_content)).one_or_none()
            if known is None:
                message = (
                    f"The project has a {noun} named {record.name!r} with other {self.kind.parts}; "
                    f"take another name, or change or delete that {noun}."
                )
                raise AlreadyExists("ALREADY_EXISTS", message)
            return ResourceRecord(*known)
        count = connection.execute(select(func.count()).select_from(self._table).where(of_project)).scalar_one()
        if count > self._max_per_project:
            message = f"The project has {count - 1:,} {noun}s already; delete one, or raise {self._max_setting}."
            raise ResourceExhausted("LIMIT_REACHED", message)
        return record

    async def get(self, project_id: str, resource_id: str) -> tuple[ResourceRecord, bytes]:
        """One with its encoded content; NotFound for an unknown id and for another project's."""
        return await self._database.read(self._get, project_id, resource_id)

    async def page(self, project_id: str, name: str, before_id: str, limit: int) -> list[ResourceRecord]:
        """Newest first, older than `before_id` ("" for all), only the one of this name if one is given."""

        def read(connection: Connection) -> list[ResourceRecord]:
            columns = self._table.c
            query = select(*self._record).where(columns.project_id == project_id)
            if name:
                query = query.where(columns.name == name)
            if before_id:
                query = query.where(columns.resource_id < before_id)
            rows = connection.execute(query.order_by(columns.resource_id.desc()).limit(limit))
            return [ResourceRecord(*row) for row in rows]

        return await self._database.read(read)

    async def update(
        self,
        resource_id: str,
        change: Callable[[ResourceRecord], ResourceRecord],
        encoded: bytes | None,
        *,
        key: RequestKey,
        payload: bytes,
        answer: Callable[[ResourceRecord], bytes],
    ) -> bytes:
        """Change one, with a new content where one is given, and remember the answer. `change` is pure.

        Raises NotFound as `get`, and AlreadyExists where another of the project has the name or the content.
        """

        def write(connection: Connection) -> bytes:
            def do() -> bytes:
                record = change(self._get(connection, key.project_id, resource_id, lock=True)[0])
                values: dict[str, Any] = asdict(record) | ({} if encoded is None else {"encoded": encoded})
                changed = update(self._table).where(*self._own(key.project_id, resource_id)).values(values)
                try:
                    connection.execute(changed)
                except IntegrityError as error:
                    noun, parts = self.kind.noun, self.kind.parts
                    message = f"Another {noun} of the project has this name, or these {parts}; look at the list."
                    raise AlreadyExists("ALREADY_EXISTS", message) from error
                return answer(record)

            return self._requests.once(connection, key, payload, do)

        return await self._database.write(write)

    async def delete(self, project_id: str, resource_id: str) -> None:
        """Remove one; NotFound as in `get`."""

        def write(connection: Connection) -> None:
            self._get(connection, project_id, resource_id, lock=True)
            connection.execute(delete(self._table).where(*self._own(project_id, resource_id)))

        await self._database.write(write)

    def _own(self, project_id: str, resource_id: str) -> tuple[ColumnElement[bool], ...]:
        return self._table.c.resource_id == resource_id, self._table.c.project_id == project_id

    def _get(
        self, connection: Connection, project_id: str, resource_id: str, *, lock: bool = False
    ) -> tuple[ResourceRecord, bytes]:
        query = select(*self._record, self._table.c.encoded).where(*self._own(project_id, resource_id))
        row = connection.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise NotFound(self.kind.noun.replace(" ", "_"), resource_id)
        *values, encoded = row
        return ResourceRecord(*values), bytes(encoded)
