"""What can go wrong, as exceptions. Each is made from the status of an RPC and its details."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from llmlab.api.common.v1 import error_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"


class LlmlabError(Exception):
    """A service refused or failed.

    Attributes:
        reason: Name of the `ErrorReason`, for example "BUDGET_EXCEEDED"; the code's name where the peer gave none.
        code: Name of the canonical gRPC code, for example "RESOURCE_EXHAUSTED".
        error_class: "network_error", "rate_limit", "invalid_request" or "server_error".
        message: What happened and what to do next.
        fields: What is wrong with which field of the request.
        retry_after_ms: When to try again at the earliest, or None.
        request_id: The id to report.
        call: Details of a failed model call (partial text, usage), or None.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        code: str,
        fields: dict[str, str] | None = None,
        retry_after_ms: int | None = None,
        request_id: str = "",
        call: error_pb2.CallError | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.fields = fields or {}
        self.retry_after_ms = retry_after_ms
        self.request_id = request_id
        self.call = call

    @property
    def error_class(self) -> str:
        """One of the four classes that simple callers branch on."""
        return _CLASS_BY_CODE.get(self.code, "server_error")

    @property
    def retryable(self) -> bool:
        """True where the same request may succeed later."""
        return self.retry_after_ms is not None or self.code in ("UNAVAILABLE", "ABORTED")


class AuthenticationError(LlmlabError):
    """The credential is missing, wrong or expired."""


class PermissionDeniedError(LlmlabError):
    """The credential does not allow this."""


class NotFoundError(LlmlabError):
    """The thing, or the model, does not exist."""


class AlreadyExistsError(LlmlabError):
    """Something with this id exists, or a `request_id` came back with another payload."""


class InvalidRequestError(LlmlabError):
    """The request has to change; `fields` says where."""


class PreconditionError(LlmlabError):
    """The state of the thing, or of our account at the provider, does not allow this."""


class RateLimitError(LlmlabError):
    """A rate limit or a limit of the server; see `retry_after_ms`."""


class BudgetExceededError(LlmlabError):
    """A hard budget does not have enough left."""


class ProviderQuotaError(LlmlabError):
    """The quota of our account at the provider is used up."""


class CircuitOpenError(LlmlabError):
    """The circuit breaker of the deployment is open."""


class StreamTruncatedError(LlmlabError):
    """The answer stopped without an end; `call` holds the partial text and usage."""


class NetworkError(LlmlabError):
    """A service, or the provider, could not be reached."""


class DeadlineError(LlmlabError):
    """The deadline passed."""


class CancelledError(LlmlabError):
    """The call was cancelled."""


class ServerError(LlmlabError):
    """A service or the provider failed."""


_BY_REASON: dict[str, type[LlmlabError]] = {
    "BUDGET_EXCEEDED": BudgetExceededError,
    "PROVIDER_QUOTA": ProviderQuotaError,
    "CIRCUIT_OPEN": CircuitOpenError,
    "STREAM_TRUNCATED": StreamTruncatedError,
}
_BY_CODE: dict[str, type[LlmlabError]] = {
    "UNAUTHENTICATED": AuthenticationError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "OUT_OF_RANGE": InvalidRequestError,
    "FAILED_PRECONDITION": PreconditionError,
    "RESOURCE_EXHAUSTED": RateLimitError,
    "UNAVAILABLE": NetworkError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "CANCELLED": CancelledError,
}
_CLASS_BY_CODE = {
    "UNAVAILABLE": "network_error",
    "DEADLINE_EXCEEDED": "network_error",
    "CANCELLED": "network_error",
    "RESOURCE_EXHAUSTED": "rate_limit",
    "INVALID_ARGUMENT": "invalid_request",
    "NOT_FOUND": "invalid_request",
    "ALREADY_EXISTS": "invalid_request",
    "OUT_OF_RANGE": "invalid_request",
    "FAILED_PRECONDITION": "invalid_request",
    "UNAUTHENTICATED": "invalid_request",
    "PERMISSION_DENIED": "invalid_request",
}


def error_from_rpc(error: grpc.aio.AioRpcError, target: str) -> LlmlabError:
    """Turns a failed RPC into the exception of its reason, or else of its code.

    Args:
        error: What grpc raised.
        target: Where the RPC went, for the message when nobody answered there.
    """
    code = error.code().name
    metadata = {key: value for key, value in (error.trailing_metadata() or ()) if isinstance(key, str)}
    status = _status(metadata.get(_DETAILS_KEY))
    request_id = metadata.get(_REQUEST_ID_KEY, "")
    reason, message = code, status.message or error.details() or code
    fields: dict[str, str] = {}
    retry_after_ms: int | None = None
    call: error_pb2.CallError | None = None
    for detail in status.details:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        failed_call = error_pb2.CallError()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            fields = {violation.field: violation.description for violation in bad.field_violations}
        elif detail.Unpack(retry):
            retry_after_ms = retry.retry_delay.ToMilliseconds()
        elif detail.Unpack(failed_call):
            call = failed_call
    if code == "UNAVAILABLE" and not status.details:
        message = f"No service answers at {target}. Start it with `llmlab up`, or correct the target. ({message})"
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, ServerError)
    return kind(
        message,
        reason=reason,
        code=code,
        fields=fields,
        retry_after_ms=retry_after_ms,
        request_id=request_id if isinstance(request_id, str) else "",
        call=call,
    )


def _status(packed: str | bytes | None) -> status_pb2.Status:
    status = status_pb2.Status()
    if isinstance(packed, bytes):
        try:
            status.ParseFromString(packed)
        except DecodeError:
            return status_pb2.Status()
    return status
