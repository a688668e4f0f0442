"""Calls for automations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from llmlab.api.gateway.v1 import automation_pb2
from llmlab.api.gateway.v1.automation_pb2_grpc import AutomationServiceStub
from llmlab.client.connection import Connection

if TYPE_CHECKING:
    from llmlab.api.gateway.v1.automation_pb2_grpc import AutomationServiceAsyncStub

AUTOMATION_TIMEOUT_S = 600.0


class AutomationCalls(Connection):
    """Automations: an agent that reaches a goal on a web page."""

    @property
    def _automations(self) -> AutomationServiceAsyncStub:
        return AutomationServiceStub(self._channel("gateway"))

    async def run_automation(
        self, url: str, goal: str, *, steps_max: int = 0, timeout_s: float = AUTOMATION_TIMEOUT_S
    ) -> automation_pb2.AutomationRun:
        """Runs an automation to its end; its state tells whether the goal was reached."""
        request = automation_pb2.RunAutomationRequest(automation=_automation(url, goal, steps_max, timeout_s))
        return (await self._unary("gateway", self._automations.RunAutomation, request, timeout_s)).run

    async def stream_automation(
        self, url: str, goal: str, *, steps_max: int = 0, timeout_s: float = AUTOMATION_TIMEOUT_S
    ) -> AsyncIterator[automation_pb2.StreamAutomationResponse]:
        """Runs an automation and yields what it does; `finished` comes last. Leaving cancels it."""
        request = automation_pb2.StreamAutomationRequest(automation=_automation(url, goal, steps_max, timeout_s))
        async for message in self._stream("gateway", self._automations.StreamAutomation, request, timeout_s):
            yield message

    async def start_automation(
        self, url: str, goal: str, *, steps_max: int = 0, timeout_s: float = AUTOMATION_TIMEOUT_S
    ) -> automation_pb2.AutomationRun:
        """Starts an automation, which runs on by itself for at most `timeout_s`."""
        request = automation_pb2.StartAutomationRequest(automation=_automation(url, goal, steps_max, timeout_s))
        return (await self._unary("gateway", self._automations.StartAutomation, request)).run

    async def get_automation(self, call_id: str) -> automation_pb2.AutomationRun:
        """Returns how a started automation stands."""
        request = automation_pb2.GetAutomationRequest(call_id=call_id)
        return (await self._unary("gateway", self._automations.GetAutomation, request)).run

    async def cancel_automation(self, call_id: str) -> bool:
        """Cancels an automation; False where none with this id is under way."""
        request = automation_pb2.CancelAutomationRequest(call_id=call_id)
        return (await self._unary("gateway", self._automations.CancelAutomation, request)).cancelled


def _automation(url: str, goal: str, steps_max: int, timeout_s: float) -> automation_pb2.Automation:
    return automation_pb2.Automation(url=url, goal=goal, steps_max=steps_max, timeout_ms=round(timeout_s * 1000))
