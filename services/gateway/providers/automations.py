"""A provider as the pipeline takes it, for automations."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.gateway.calls import ProviderRequest
from services.gateway.chunks import Event
from services.gateway.failures import refused
from services.gateway.providers.port import Automator, Provider


class AutomationProvider:
    """Sends automations to providers that run them."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Provider.stream. Raises CallFailed(INVALID_FIELD), not dispatched, where the provider runs none."""
        if not isinstance(self._provider, Automator):
            raise refused("INVALID_FIELD", "this provider runs no automations", field="automation.provider")
        return self._provider.automate(request, deadline)

    async def close(self) -> None:
        """Nothing of its own to close."""
