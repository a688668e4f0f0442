"""The port that every provider implements."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from services.gateway.calls import ProviderRequest
from services.gateway.chunks import Event


@runtime_checkable
class Embedder(Protocol):
    """A provider that also has models for embeddings."""

    def embed(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """Like `stream`, for a call for embeddings: yields `Vectors` instead of text."""
        ...


@runtime_checkable
class Automator(Protocol):
    """A provider that runs automations."""

    def automate(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """Like `stream`, for an automation: yields `AutomationUpdate`s and at its end an `AutomationResult`."""
        ...


class Provider(Protocol):
    """One way to reach models."""

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """Ask the model and yield what it answers: all events of one socket read together.

        `deadline` is in `time.monotonic` seconds; the caller enforces it too. Ends when the answer ends: an answer
        without a `Finished` event is a truncated one, which the caller finds out. Closing the generator stops the
        provider. Raises CallFailed; its `failure.dispatched` is False only where nothing can have been sent.
        """
        ...

    async def close(self) -> None:
        """Close every connection. No call is under way any more."""
        ...
