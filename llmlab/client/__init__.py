"""Typed client of the llmlab services: `Client` for asyncio, `SyncClient` without, typed exceptions for both."""

from llmlab.client.channels import Tls
from llmlab.client.client import Client
from llmlab.client.endpoints import DEFAULT_PORTS, SERVICES, Endpoints, find_credentials
from llmlab.client.errors import (
    AlreadyExistsError,
    AuthenticationError,
    BudgetExceededError,
    CancelledError,
    CircuitOpenError,
    DeadlineError,
    InvalidRequestError,
    LlmlabError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    ProviderQuotaError,
    RateLimitError,
    ServerError,
    StreamTruncatedError,
)
from llmlab.client.sync import SyncClient

__all__ = [
    "DEFAULT_PORTS",
    "SERVICES",
    "AlreadyExistsError",
    "AuthenticationError",
    "BudgetExceededError",
    "CancelledError",
    "CircuitOpenError",
    "Client",
    "DeadlineError",
    "Endpoints",
    "InvalidRequestError",
    "LlmlabError",
    "NetworkError",
    "NotFoundError",
    "PermissionDeniedError",
    "PreconditionError",
    "ProviderQuotaError",
    "RateLimitError",
    "ServerError",
    "StreamTruncatedError",
    "SyncClient",
    "Tls",
    "find_credentials",
]
