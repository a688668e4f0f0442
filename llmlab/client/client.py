"""The client of all services."""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from llmlab.api.common.v1 import server_pb2
from llmlab.api.common.v1.server_pb2_grpc import ServerServiceStub
from llmlab.client.alert_calls import AlertCalls
from llmlab.client.automation_calls import AutomationCalls
from llmlab.client.brand_calls import BrandCalls
from llmlab.client.brand_set_calls import BrandSetCalls
from llmlab.client.budget_calls import BudgetCalls
from llmlab.client.chat_calls import ChatCalls
from llmlab.client.dataset_calls import DatasetCalls
from llmlab.client.gateway_calls import GatewayCalls
from llmlab.client.identity_calls import IdentityCalls
from llmlab.client.insight_calls import InsightCalls
from llmlab.client.judge_calls import JudgeCalls
from llmlab.client.metrics_calls import MetricsCalls
from llmlab.client.orchestrator_calls import OrchestratorCalls
from llmlab.client.price_calls import PriceCalls
from llmlab.client.prompt_calls import PromptCalls
from llmlab.client.provider_calls import ProviderCalls
from llmlab.client.repricing_calls import RepricingCalls
from llmlab.client.usage_calls import UsageCalls

STATUS_TIMEOUT_S = 5.0


class Client(
    OrchestratorCalls,
    GatewayCalls,
    ChatCalls,
    AutomationCalls,
    ProviderCalls,
    MetricsCalls,
    BrandCalls,
    BrandSetCalls,
    PromptCalls,
    DatasetCalls,
    JudgeCalls,
    UsageCalls,
    PriceCalls,
    RepricingCalls,
    BudgetCalls,
    AlertCalls,
    InsightCalls,
    IdentityCalls,
):
    """All calls to llmlab, for asyncio.

    Every call has a deadline and raises a `LlmlabError`. Calls that may be repeated are retried by the channel; calls
    that pay a provider never are.

    Example:
        async with Client(Endpoints(), api_key="llmlab_...") as client:
            completion = await client.complete("mock/small", "Say hello.")
    """

    async def server_info(self, service: str) -> server_pb2.GetServerInfoResponse:
        """Returns version, uptime and features of a service, by its name."""
        stub = ServerServiceStub(self._channel(service))
        request = server_pb2.GetServerInfoRequest()
        return await self._unary(service, stub.GetServerInfo, request, STATUS_TIMEOUT_S)

    async def health(self, service: str) -> str:
        """Returns the health that a service reports: "SERVING", "NOT_SERVING" or "UNKNOWN"."""
        check = self._channel(service).unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        response = await self._unary(service, check, health_pb2.HealthCheckRequest(), STATUS_TIMEOUT_S)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
