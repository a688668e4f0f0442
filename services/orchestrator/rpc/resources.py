"""What the services of resources (brand sets, prompts, datasets) have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, cast

from google.protobuf.message import Message

from services.orchestrator.resources import Content, ResourceRecord
from services.orchestrator.rpc.codec import payload_of
from services.orchestrator.store.resources import SqlResources
from services.runtime.clock import Clock
from services.runtime.context import current_principal
from services.runtime.ids import new_id
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint
from services.runtime.requests import RequestKey

_PAGE_SIZE_DEFAULT: Final = 50


class CreateRequest(Protocol):
    """What every request has that creates a resource."""

    request_id: str
    name: str


class ListRequest(Protocol):
    """What every request has that lists resources."""

    name: str
    page_size: int
    page_token: str


class ResourceCalls:
    """The calls of one kind of resources, for the caller's project."""

    def __init__(self, store: SqlResources, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(
        self, method: str, request: CreateRequest, content: Content, answer: Callable[[ResourceRecord, bool], Message]
    ) -> bytes:
        """The answer, encoded, about a new resource, or about the one that has this content already (False).

        Raises as `SqlResources.create`.
        """
        project_id, now_us = current_principal().project_id, self._clock.now_us()
        record = ResourceRecord(
            resource_id=new_id(self._store.kind.prefix),
            project_id=project_id,
            name=request.name,
            content_hash=content.content_hash,
            parts=content.parts,
            created_us=now_us,
            updated_us=now_us,
        )
        return await self._store.create(
            record,
            content.encoded,
            key=RequestKey(project_id, method, request.request_id),
            payload=payload_of(cast("Message", request)),
            answer=lambda kept: answer(kept, kept.resource_id == record.resource_id).SerializeToString(),
        )

    async def get(self, resource_id: str) -> tuple[ResourceRecord, bytes]:
        """One with its encoded content; NotFound."""
        return await self._store.get(current_principal().project_id, resource_id)

    async def page(self, method: str, request: ListRequest) -> tuple[list[ResourceRecord], str]:
        """A page, newest first, and the token of the next one."""
        project_id = current_principal().project_id
        fingerprint = filter_fingerprint(method, project_id, request.name)
        before = decode_page_token(fingerprint, request.page_token)
        size = request.page_size or _PAGE_SIZE_DEFAULT
        found = await self._store.page(project_id, request.name, str(before[0]) if before else "", size + 1)
        page = found[:size]
        return page, encode_page_token(fingerprint, [page[-1].resource_id]) if len(found) > size else ""

    async def delete(self, resource_id: str) -> None:
        """Delete one; NotFound."""
        await self._store.delete(current_principal().project_id, resource_id)
