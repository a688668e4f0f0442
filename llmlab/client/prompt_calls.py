"""Calls about prompts that several experiments use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from llmlab.api.orchestrator.v1 import experiment_pb2, prompt_pb2
from llmlab.api.orchestrator.v1.prompt_pb2_grpc import PromptServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.orchestrator.v1.prompt_pb2_grpc import PromptServiceAsyncStub


class PromptCalls(Connection):
    """Prompts of the project."""

    @property
    def _prompts(self) -> PromptServiceAsyncStub:
        return PromptServiceStub(self._channel("orchestrator"))

    async def create_prompt(
        self, name: str, messages: Iterable[experiment_pb2.MessageTemplate], *, request_id: str = ""
    ) -> prompt_pb2.CreatePromptResponse:
        """Creates a prompt, or gives the one with these messages; `created` tells which."""
        request = prompt_pb2.CreatePromptRequest(request_id=request_id, name=name, messages=messages)
        return await self._unary("orchestrator", self._prompts.CreatePrompt, request)

    async def get_prompt(self, prompt_id: str) -> prompt_pb2.Prompt:
        """Returns one prompt with its messages."""
        request = prompt_pb2.GetPromptRequest(prompt_id=prompt_id)
        return (await self._unary("orchestrator", self._prompts.GetPrompt, request)).prompt

    async def list_prompts(self, *, name: str = "") -> AsyncIterator[prompt_pb2.Prompt]:
        """Yields the project's prompts, newest first, without messages; with `name`, only the one of that name."""
        request = prompt_pb2.ListPromptsRequest(name=name)
        async for page in self._pages("orchestrator", self._prompts.ListPrompts, request):
            for prompt in page.prompts:
                yield prompt

    async def delete_prompt(self, prompt_id: str) -> None:
        """Deletes a prompt; experiments that have taken a copy keep it."""
        request = prompt_pb2.DeletePromptRequest(prompt_id=prompt_id)
        await self._unary("orchestrator", self._prompts.DeletePrompt, request)
