"""PromptService: prompts that several experiments use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llmlab.api.orchestrator.v1 import prompt_pb2 as pb
from llmlab.api.orchestrator.v1.prompt_pb2_grpc import PromptServiceServicer
from services.orchestrator.library import decode_messages, prompt_content
from services.orchestrator.resources import ResourceRecord
from services.orchestrator.rpc.codec import timestamp_of
from services.orchestrator.rpc.resources import ResourceCalls
from services.orchestrator.rpc.specs import message_templates, messages_of
from services.orchestrator.store.resources import SqlResources
from services.runtime.clock import Clock

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class PromptServicer(PromptServiceServicer):
    """Serves llmlab.api.orchestrator.v1.PromptService."""

    def __init__(self, prompts: SqlResources, clock: Clock) -> None:
        self._calls = ResourceCalls(prompts, clock)

    async def CreatePrompt(self, request: pb.CreatePromptRequest, context: Context) -> pb.CreatePromptResponse:
        """Creates a prompt, or gives the one with the same messages."""
        content = await asyncio.to_thread(prompt_content, messages_of(request.messages))
        first = await self._calls.create(
            "CreatePrompt",
            request,
            content,
            lambda kept, created: pb.CreatePromptResponse(prompt=_message(kept), created=created),
        )
        return pb.CreatePromptResponse.FromString(first)

    async def GetPrompt(self, request: pb.GetPromptRequest, context: Context) -> pb.GetPromptResponse:
        """Gives one prompt."""
        record, encoded = await self._calls.get(request.prompt_id)
        message = _message(record)
        message.messages.extend(message_templates(decode_messages(encoded)))
        return pb.GetPromptResponse(prompt=message)

    async def ListPrompts(self, request: pb.ListPromptsRequest, context: Context) -> pb.ListPromptsResponse:
        """Lists the project's prompts."""
        page, token = await self._calls.page("ListPrompts", request)
        return pb.ListPromptsResponse(prompts=map(_message, page), next_page_token=token)

    async def DeletePrompt(self, request: pb.DeletePromptRequest, context: Context) -> pb.DeletePromptResponse:
        """Deletes a prompt."""
        await self._calls.delete(request.prompt_id)
        return pb.DeletePromptResponse()


def _message(record: ResourceRecord) -> pb.Prompt:
    """A prompt without its messages."""
    return pb.Prompt(
        prompt_id=record.resource_id,
        name=record.name,
        message_count=record.parts,
        content_hash=record.content_hash,
        create_time=timestamp_of(record.created_us),
    )
