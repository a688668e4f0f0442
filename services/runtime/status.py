"""Errors on the wire: DomainError to `google.rpc.Status` and back.

Every status that leaves carries exactly one `ErrorInfo` (domain "llmlab", the reason, metadata with the request id),
and BadRequest, RetryInfo, PreconditionFailure or QuotaFailure where they fit.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as rich
from google.rpc.status_pb2 import Status

from services.runtime.errors import INTERRUPTED_KEY, DomainError, FieldViolation, error_of_code

ERROR_DOMAIN = "llmlab"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "request_id"

# A gRPC client refuses more than 8 KiB of metadata by default, and then the caller learns nothing at all.
MAX_MESSAGE_BYTES = 1_500
MAX_DESCRIPTION_CHARS = 300
MAX_BAD_REQUEST_BYTES = 2_400

_CODES = {code.name: code for code in grpc.StatusCode}
_NUMBERS = {code.name: code.value[0] for code in grpc.StatusCode}

# gRPC's words for an answer, not a request, that is too large: the call was made.
_ANSWER_TOO_LARGE = ("CLIENT: Received message larger", "SERVER: Sent message larger")

# Reason of an error that gRPC itself made, so that no server of ours could name one.
_REASON_OF_CODE = {
    "CANCELLED": "CANCELLED",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "UNAVAILABLE": "DEPENDENCY_UNAVAILABLE",
    "UNIMPLEMENTED": "UNKNOWN_METHOD",
    "RESOURCE_EXHAUSTED": "OVERLOADED",
    "NOT_FOUND": "NOT_FOUND",
    "INVALID_ARGUMENT": "INVALID_FIELD",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "UNAUTHENTICATED": "CREDENTIAL_INVALID",
}


def code_of(error: DomainError) -> grpc.StatusCode:
    """The canonical code as grpc's enum."""
    return _CODES.get(error.code, grpc.StatusCode.UNKNOWN)


def status_of(error: DomainError, request_id: str = "") -> Status:
    """The error as it leaves the process."""
    message = _shortened(error.message)
    status = Status(code=_NUMBERS.get(error.code, grpc.StatusCode.UNKNOWN.value[0]), message=message)
    metadata = {**error.metadata, REQUEST_ID_KEY: request_id} if request_id else error.metadata
    _pack(status, rich.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=metadata))
    if error.violations:
        _pack(status, _bad_request(error))
    if error.retry_after_ms is not None:
        retry = rich.RetryInfo()
        retry.retry_delay.FromMilliseconds(max(0, error.retry_after_ms))
        _pack(status, retry)
    if error.code == "FAILED_PRECONDITION":
        precondition = rich.PreconditionFailure.Violation(
            type=error.reason, subject=error.subject, description=_described(message)
        )
        _pack(status, rich.PreconditionFailure(violations=[precondition]))
    if error.code == "RESOURCE_EXHAUSTED" and error.subject:
        quota = rich.QuotaFailure.Violation(subject=error.subject, description=_described(message))
        _pack(status, rich.QuotaFailure(violations=[quota]))
    for detail in error.details:
        _pack(status, detail)
    return status


def trailing_metadata(status: Status) -> tuple[tuple[str, bytes], ...]:
    """The metadata that carries a rich status beside the plain code and message."""
    return ((STATUS_DETAILS_KEY, status.SerializeToString()),)


def error_from_rpc(error: grpc.RpcError) -> DomainError:
    """What a peer refused, as the same error that it raised there.

    Reason, message, violations, retry time, metadata (with the peer's request id) and the packed details come back;
    `details` holds the packed messages other than the standard ones, as `google.protobuf.Any`. An error that gRPC
    itself made (no connection, deadline, a message too large) gets the reason that fits its code.
    """
    call: Any = error
    code: str = call.code().name
    text: str = call.details() or ""
    status = _rich_status(call)
    if status is None:
        metadata = {INTERRUPTED_KEY: "true"} if any(words in text for words in _ANSWER_TOO_LARGE) else None
        return error_of_code(code, _plain_reason(code, text), _plain_message(code, text), metadata=metadata)
    return _unpack(code, text, status)


def _shortened(message: str) -> str:
    """At most MAX_MESSAGE_BYTES on the wire, where each byte that is not ASCII takes three (percent-encoding)."""
    if message.isascii():
        return message[:MAX_MESSAGE_BYTES]
    return message.encode()[: MAX_MESSAGE_BYTES // 3].decode(errors="ignore")


def _described(text: str) -> str:
    """The text as the description of a detail; one that is too long ends with an ellipsis, so that it looks cut."""
    return text if len(text) <= MAX_DESCRIPTION_CHARS else f"{text[: MAX_DESCRIPTION_CHARS - 1]}…"


def _pack(status: Status, detail: Message) -> None:
    if isinstance(detail, PackedMessage):
        status.details.append(detail)
    else:
        status.details.add().Pack(detail)


def _bad_request(error: DomainError) -> rich.BadRequest:
    """All violations, or as many as fit and a last one that says how many were left out."""
    answer = rich.BadRequest()
    for index, violation in enumerate(error.violations):
        description = _described(violation.description)
        answer.field_violations.add(field=violation.field, description=description, reason=error.reason)
        if index and answer.ByteSize() > MAX_BAD_REQUEST_BYTES:
            del answer.field_violations[-1]
            answer.field_violations.add(description=f"{len(error.violations) - index} more fields are wrong")
            break
    return answer


def _rich_status(call: Any) -> Status | None:
    for key, value in call.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY:
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _plain_reason(code: str, text: str) -> str:
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in text:
        return "MESSAGE_TOO_LARGE"
    return _REASON_OF_CODE.get(code, "INTERNAL")


def _plain_message(code: str, text: str) -> str:
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in text:
        return f"{text}; send less at once, or raise LLMLAB_MAX_MESSAGE_BYTES on both sides"
    return text or code.lower().replace("_", " ")


def _unpack(code: str, text: str, status: Status) -> DomainError:
    reason, metadata, subject = _plain_reason(code, text), dict[str, str](), ""
    violations: list[FieldViolation] = []
    retry_after_ms: int | None = None
    details: list[PackedMessage] = []
    info, bad, retry = rich.ErrorInfo(), rich.BadRequest(), rich.RetryInfo()
    quota, precondition = rich.QuotaFailure(), rich.PreconditionFailure()
    for packed in status.details:
        if packed.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif packed.Unpack(bad):
            violations.extend(FieldViolation(item.field, item.description) for item in bad.field_violations)
        elif packed.Unpack(retry):
            retry_after_ms = retry.retry_delay.ToMilliseconds()
        elif packed.Unpack(quota):
            subject = quota.violations[0].subject if quota.violations else subject
        elif packed.Unpack(precondition):
            subject = precondition.violations[0].subject if precondition.violations else subject
        else:
            details.append(packed)
    return error_of_code(
        code,
        reason,
        status.message or text,
        retry_after_ms=retry_after_ms,
        violations=violations,
        subject=subject,
        metadata=metadata,
        details=details,
    )
