"""TinyFish without TinyFish: automations that reach every goal at once, in appearance. Nothing is sent or charged."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import orjson

from services.gateway.calls import ProviderRequest
from services.gateway.chunks import (
    AutomationResult,
    AutomationUpdate,
    Event,
    Finished,
    FinishReason,
    RawBytes,
    Started,
    UsageSoFar,
)
from services.gateway.failures import refused
from services.gateway.usage import TokenUsage


class TinyFishMock:
    """See TinyFish. Its answers say that they are mocked."""

    def stream(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Provider.stream: there are no completions here."""
        raise refused("INVALID_FIELD", "TinyFish runs automations; use the AutomationService", field="call.model")

    async def automate(self, request: ProviderRequest, deadline: float) -> AsyncGenerator[list[Event], None]:
        """See Automator.automate."""
        run_id = f"mock-{request.attempt_id}"
        goal = request.call.automation.goal if request.call.automation else ""
        body = {"run_id": run_id, "status": "COMPLETED", "mock": True, "result": {"goal": goal}, "num_of_steps": 0}
        yield [Started(provider_model="mock", provider_request_id=run_id), AutomationUpdate("progress", "mocked")]
        yield [
            RawBytes(orjson.dumps(body)),
            UsageSoFar(TokenUsage()),
            AutomationResult(goal_reached=True),
            Finished(FinishReason.STOP),
        ]

    async def close(self) -> None:
        """Nothing to close."""
