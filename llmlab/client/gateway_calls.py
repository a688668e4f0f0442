"""Calls to the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from llmlab.api.common.v1 import content_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

COMPLETION_TIMEOUT_S = 300.0

Prompt = str | Sequence[content_pb2.Message]


def messages_of(prompt: Prompt) -> list[content_pb2.Message]:
    """Returns the messages of a prompt; a text is one message of the user."""
    if isinstance(prompt, str):
        return [content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.ContentPart(text=prompt)])]
    return list(prompt)


def parameters_of(parameters: dict[str, Any]) -> gateway_pb2.Parameters:
    """Builds parameters; None leaves a field out."""
    return gateway_pb2.Parameters(**{name: value for name, value in parameters.items() if value is not None})


def call_of(
    model: str,
    prompt: Prompt,
    timeout_s: float,
    json_schema: str,
    cache: gateway_pb2.CacheControl | None,
    parameters: dict[str, Any],
) -> gateway_pb2.Call:
    """Builds a call; `parameters` are fields of `Parameters`, None leaves one out."""
    return gateway_pb2.Call(
        model=model,
        messages=messages_of(prompt),
        parameters=parameters_of(parameters),
        response_json_schema=json_schema,
        cache=cache,
        timeout_ms=round(timeout_s * 1000),
    )


class GatewayCalls(Connection):
    """Models and completions."""

    @property
    def _gateway(self) -> GatewayServiceAsyncStub:
        return GatewayServiceStub(self._channel("gateway"))

    async def complete(
        self,
        /,
        model: str,
        prompt: Prompt,
        *,
        timeout_s: float = COMPLETION_TIMEOUT_S,
        json_schema: str = "",
        cache: gateway_pb2.CacheControl | None = None,
        skip_cost: bool = False,
        **parameters: Any,
    ) -> gateway_pb2.Completion:
        """Calls a model and returns its whole answer.

        Args:
            model: "provider/model".
            prompt: A text, or messages.
            timeout_s: Seconds that the call may take.
            json_schema: The text of a JSON schema that the answer has to follow.
            cache: What to do about kept answers; by default deterministic calls use them.
            skip_cost: Answer a few milliseconds earlier, without `cost`.
            parameters: Fields of `Parameters`, for example temperature=0.2, max_output_tokens=500.
        """
        request = gateway_pb2.CompleteRequest(
            call=call_of(model, prompt, timeout_s, json_schema, cache, parameters), skip_cost=skip_cost
        )
        response = await self._unary("gateway", self._gateway.Complete, request, timeout_s)
        return response.completion

    async def stream_complete(
        self,
        /,
        model: str,
        prompt: Prompt,
        *,
        timeout_s: float = COMPLETION_TIMEOUT_S,
        json_schema: str = "",
        cache: gateway_pb2.CacheControl | None = None,
        **parameters: Any,
    ) -> AsyncIterator[gateway_pb2.Chunk]:
        """Calls a model and yields its answer as it arrives; `finished` comes last. Leaving stops the provider.

        The arguments are those of `complete`.
        """
        request = gateway_pb2.StreamCompleteRequest(
            call=call_of(model, prompt, timeout_s, json_schema, cache, parameters)
        )
        async for message in self._stream("gateway", self._gateway.StreamComplete, request, timeout_s):
            for chunk in message.chunks:
                yield chunk

    async def embed(
        self, /, model: str, texts: Sequence[str], *, dimensions: int = 0, timeout_s: float = COMPLETION_TIMEOUT_S
    ) -> gateway_pb2.EmbedResponse:
        """Turns 1 - 128 texts into vectors, in their order; `dimensions` 0 leaves the length to the model."""
        request = gateway_pb2.EmbedRequest(
            model=model, texts=texts, dimensions=dimensions, timeout_ms=round(timeout_s * 1000)
        )
        return await self._unary("gateway", self._gateway.Embed, request, timeout_s)

    async def list_models(self, provider: str = "") -> AsyncIterator[gateway_pb2.Model]:
        """Yields the models that can be called, by name."""
        request = gateway_pb2.ListModelsRequest(provider=provider)
        async for page in self._pages("gateway", self._gateway.ListModels, request):
            for model in page.models:
                yield model
