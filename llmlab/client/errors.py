"""What can go wrong, as exceptions. Each is made from the status of an RPC and its details."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from llmlab.api.common.v1 import error_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "request_id"


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
        if self.call is not None and self.call.error_class:
            return error_pb2.ErrorClass.Name(self.call.error_class).removeprefix("ERROR_CLASS_").lower()
        return "invalid_request" if self.reason == _TOO_LARGE else _CLASS_BY_CODE.get(self.code, "server_error")

    @property
    def retryable(self) -> bool:
        """True where the same request may succeed later."""
        if self.call is not None:
            return self.call.retryable
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


_TOO_LARGE = "MESSAGE_TOO_LARGE"

_BY_REASON: dict[str, type[LlmlabError]] = {
    _TOO_LARGE: InvalidRequestError,
    "PROVIDER_UNAVAILABLE": ServerError,
    "PROVIDER_OVERLOADED": ServerError,
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
    status = _status(error)
    details = _Details(reason=code)
    for packed in status.details:
        details.read(packed)
    message = status.message or error.details() or code
    if not status.details:  # grpc itself refused, or something that is not llmlab answered
        details.reason, message = _own_words(code, message, target)
    kind = _BY_REASON.get(details.reason) or _BY_CODE.get(code, ServerError)
    return kind(
        message,
        reason=details.reason,
        code=code,
        fields=details.fields,
        retry_after_ms=details.retry_after_ms,
        request_id=details.request_id,
        call=details.call,
    )


@dataclass(slots=True)
class _Details:
    """What the details of a status say."""

    reason: str
    request_id: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    retry_after_ms: int | None = None
    call: error_pb2.CallError | None = None

    def read(self, packed: PackedMessage) -> None:
        """Takes over what one detail says; one of an unknown kind says nothing."""
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        call = error_pb2.CallError()
        if packed.Unpack(info):
            self.reason, self.request_id = info.reason, info.metadata.get(_REQUEST_ID_KEY, "")
        elif packed.Unpack(bad):
            self.fields = {violation.field: violation.description for violation in bad.field_violations}
        elif packed.Unpack(retry):
            self.retry_after_ms = retry.retry_delay.ToMilliseconds()
        elif packed.Unpack(call):
            self.call = call


def _own_words(code: str, message: str, target: str) -> tuple[str, str]:
    """Reason and message of a failure that carries no details."""
    if code == "UNAVAILABLE":
        return code, f"No service answers at {target}. Start it with `llmlab up`, or correct the target. ({message})"
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in message:
        return _TOO_LARGE, f"The message is above the size limit; send less at once. ({message})"
    return code, message


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The rich status of an error; an empty one where there is none, or none that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()
