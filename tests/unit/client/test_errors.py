"""The client's exceptions: which one, and what it carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, DebugInfo, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from llmlab.api.common.v1 import error_pb2
from llmlab.api.common.v1.usage_pb2 import TokenUsage
from llmlab.client import (
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
from llmlab.client.errors import error_from_rpc

if TYPE_CHECKING:
    from google.protobuf.message import Message

Code = grpc.StatusCode


def failed(code: grpc.StatusCode, message: str, *details: Message) -> LlmlabError:
    status = Status(code=code.value[0], message=message)
    for detail in details:
        packed = PackedMessage()
        packed.Pack(detail)
        status.details.append(packed)
    trailing = (("grpc-status-details-bin", status.SerializeToString()),) if details else ()
    return error_from_rpc(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=message), "127.0.0.1:7414"
    )


@pytest.mark.parametrize(
    ("code", "reason", "kind", "error_class"),
    [
        (Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED", AuthenticationError, "invalid_request"),
        (Code.PERMISSION_DENIED, "PERMISSION_DENIED", PermissionDeniedError, "invalid_request"),
        (Code.NOT_FOUND, "NOT_FOUND", NotFoundError, "invalid_request"),
        (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", AlreadyExistsError, "invalid_request"),
        (Code.INVALID_ARGUMENT, "TOO_MANY_CELLS", InvalidRequestError, "invalid_request"),
        (Code.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE", InvalidRequestError, "invalid_request"),
        (Code.FAILED_PRECONDITION, "DELEGATION_ENDED", PreconditionError, "invalid_request"),
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", RateLimitError, "rate_limit"),
        (Code.RESOURCE_EXHAUSTED, "LOGIN_THROTTLED", RateLimitError, "rate_limit"),
        (Code.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED", BudgetExceededError, "rate_limit"),
        (Code.RESOURCE_EXHAUSTED, "PROVIDER_QUOTA", ProviderQuotaError, "rate_limit"),
        (Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", InvalidRequestError, "invalid_request"),
        (Code.UNAVAILABLE, "CIRCUIT_OPEN", CircuitOpenError, "network_error"),
        (Code.UNAVAILABLE, "STREAM_TRUNCATED", StreamTruncatedError, "network_error"),
        (Code.UNAVAILABLE, "NETWORK_ERROR", NetworkError, "network_error"),
        (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", DeadlineError, "network_error"),
        (Code.CANCELLED, "CANCELLED", CancelledError, "network_error"),
        (Code.INTERNAL, "INTERNAL", ServerError, "server_error"),
        (Code.INTERNAL, "PROVIDER_ERROR", ServerError, "server_error"),
        (Code.ABORTED, "CONFLICT", ServerError, "server_error"),
    ],
)
def test_reason_and_code_decide_the_exception(
    code: grpc.StatusCode, reason: str, kind: type[LlmlabError], error_class: str
) -> None:
    error = failed(code, "what to do next", ErrorInfo(reason=reason, domain="llmlab"))
    assert type(error) is kind
    assert (error.reason, error.code, error.error_class) == (reason, code.name, error_class)
    assert str(error) == error.message == "what to do next"


def test_every_detail_is_read() -> None:
    error = failed(
        Code.RESOURCE_EXHAUSTED,
        "slow down",
        ErrorInfo(reason="RATE_LIMITED", metadata={"request_id": "req_1"}),
        RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
        BadRequest(field_violations=[BadRequest.FieldViolation(field="models[2]", description="is unknown")]),
        DebugInfo(detail="of a kind that nobody asked for"),
    )
    assert error.request_id == "req_1"
    assert error.retry_after_ms == 2500
    assert error.fields == {"models[2]": "is unknown"}
    assert error.retryable
    assert error.call is None


def test_a_failed_model_call_keeps_what_arrived() -> None:
    call = error_pb2.CallError(
        reason=error_pb2.ERROR_REASON_PROVIDER_OVERLOADED,
        error_class=error_pb2.ERROR_CLASS_SERVER_ERROR,
        retryable=False,
        partial_text="Once upon",
        usage=TokenUsage(output_tokens=2),
    )
    error = failed(Code.UNAVAILABLE, "overloaded", ErrorInfo(reason="PROVIDER_OVERLOADED"), call)
    assert isinstance(error, ServerError)
    assert error.call == call
    assert error.error_class == "server_error"
    assert not error.retryable


@pytest.mark.parametrize(
    ("code", "retryable"),
    [(Code.UNAVAILABLE, True), (Code.ABORTED, True), (Code.INTERNAL, False), (Code.INVALID_ARGUMENT, False)],
)
def test_without_more_words_the_code_says_whether_to_try_again(code: grpc.StatusCode, retryable: bool) -> None:
    assert failed(code, "").retryable is retryable


def test_nobody_at_the_target_says_what_to_do() -> None:
    error = failed(Code.UNAVAILABLE, "connection refused")
    assert isinstance(error, NetworkError)
    assert "127.0.0.1:7414" in error.message
    assert "llmlab up" in error.message


def test_a_message_that_grpc_refuses_names_the_limit() -> None:
    error = failed(Code.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (9 vs. 8)")
    assert isinstance(error, InvalidRequestError)
    assert error.reason == "MESSAGE_TOO_LARGE"
    assert "size limit" in error.message


def test_details_that_cannot_be_read_leave_the_plain_status() -> None:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff\xff"))
    rpc = grpc.aio.AioRpcError(Code.NOT_FOUND, grpc.aio.Metadata(), trailing, details="gone")
    error = error_from_rpc(rpc, "x")
    assert isinstance(error, NotFoundError)
    assert (error.reason, error.message) == ("NOT_FOUND", "gone")
