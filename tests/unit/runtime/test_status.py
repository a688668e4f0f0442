from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2 as rich
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError, Metadata

from llmlab.api.common.v1 import error_pb2
from services.runtime.errors import (
    DomainError,
    FieldViolation,
    Internal,
    InvalidField,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    Unavailable,
    WrongState,
)
from services.runtime.status import MAX_DESCRIPTION_CHARS, error_from_rpc, status_of, trailing_metadata

# What clients of gRPC accept in metadata unless told otherwise.
DEFAULT_METADATA_BYTES = 8 * 1024


def details_of(status: Status, kind: Any) -> list[Any]:
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


def sent_and_received(error: DomainError, request_id: str = "") -> DomainError:
    status = status_of(error, request_id)
    code = next(code for code in grpc.StatusCode if code.name == error.code)
    return error_from_rpc(AioRpcError(code, Metadata(), Metadata(*trailing_metadata(status)), details=status.message))


ERRORS = [
    InvalidField("spec.name", "is empty"),
    NotFound("run", "run_1"),
    ResourceExhausted("BUDGET_EXCEEDED", "no money", subject="budget:b", metadata={"budget_id": "b"}),
    ResourceExhausted("RATE_LIMITED", "slow down", retry_after_ms=1_500),
    Unavailable("CIRCUIT_OPEN", "open", retry_after_ms=0),
    WrongState("WRONG_STATE", "the run has ended", subject="run:run_1"),
    Internal("INTERNAL", "a fault"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_an_error_comes_back_as_it_went(error: DomainError) -> None:
    back = sent_and_received(error)

    assert isinstance(error, type(back))
    for name in ("code", "reason", "message", "retry_after_ms", "violations", "subject", "metadata", "details"):
        assert getattr(back, name) == getattr(error, name), name


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_a_status_has_exactly_one_error_info(error: DomainError) -> None:
    (info,) = details_of(status_of(error, "req_1"), rich.ErrorInfo)

    assert (info.domain, info.reason, info.metadata["request_id"]) == ("llmlab", error.reason, "req_1")


def test_details_stand_where_they_fit() -> None:
    limited = status_of(ERRORS[3])
    budget = status_of(ERRORS[2])

    assert details_of(limited, rich.RetryInfo)[0].retry_delay.ToMilliseconds() == 1_500
    assert not details_of(limited, rich.QuotaFailure)
    assert details_of(budget, rich.QuotaFailure)[0].violations[0].subject == "budget:b"
    assert not details_of(budget, rich.RetryInfo)
    assert details_of(status_of(ERRORS[5]), rich.PreconditionFailure)[0].violations[0].subject == "run:run_1"
    assert details_of(status_of(ERRORS[0]), rich.BadRequest)[0].field_violations[0].field == "spec.name"


def test_further_details_travel_packed() -> None:
    call_error = error_pb2.CallError(message="cut", partial_text="so far")
    back = sent_and_received(Unavailable("STREAM_TRUNCATED", "cut", details=[call_error]))

    received = error_pb2.CallError()
    assert back.details[0].Unpack(received)
    assert received == call_error
    # And once more, from one service through the next.
    assert sent_and_received(back).details == back.details


@pytest.mark.parametrize("letter", ["m", "\u660e"])
def test_the_message_and_the_violations_are_bounded(letter: str) -> None:
    violations = [FieldViolation(f"messages[{index}].parts[0].text", "x" * 500) for index in range(1_000)]
    status = status_of(InvalidRequest("INVALID_FIELD", letter * 10_000, violations=violations), "req_1")
    fields = details_of(status, rich.BadRequest)[0].field_violations

    # The message travels twice: as such, and in the status. Binary metadata is base64.
    assert len(quote(status.message)) + status.ByteSize() * 4 / 3 < DEFAULT_METADATA_BYTES
    assert fields[0].field == "messages[0].parts[0].text"
    assert fields[-1].description == f"{1_000 - (len(fields) - 1)} more fields are wrong"


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", "DEPENDENCY_UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.CANCELLED, "", "CANCELLED"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", "UNKNOWN_METHOD"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", "MESSAGE_TOO_LARGE"),
        (grpc.StatusCode.UNKNOWN, "what", "INTERNAL"),
    ],
)
def test_an_error_that_grpc_made_gets_the_reason_of_its_code(code: grpc.StatusCode, text: str, reason: str) -> None:
    error = error_from_rpc(AioRpcError(code, Metadata(), Metadata(), details=text))

    assert (error.code, error.reason) == (code.name, reason)
    assert error.message


def test_details_that_are_no_status_are_ignored() -> None:
    broken = Metadata(("grpc-status-details-bin", b"\xff\xff\xff"))
    error = error_from_rpc(AioRpcError(grpc.StatusCode.NOT_FOUND, Metadata(), broken, details="gone"))

    assert (error.reason, error.message) == ("NOT_FOUND", "gone")


def test_only_names_of_the_proto_enum_stand_for_codes_of_grpc() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118 (not a dict)
    errors = [AioRpcError(code, Metadata(), Metadata(), details="") for code in grpc.StatusCode]

    assert {error_from_rpc(error).reason for error in errors} <= names


def test_a_description_that_is_cut_looks_cut() -> None:
    whole = InvalidField("name", "x" * MAX_DESCRIPTION_CHARS)
    cut = InvalidField("name", "x" * (MAX_DESCRIPTION_CHARS + 1))
    assert _description(whole) == "x" * MAX_DESCRIPTION_CHARS
    assert _description(cut) == "x" * (MAX_DESCRIPTION_CHARS - 1) + "…"


def _description(error: DomainError) -> str:
    description: str = details_of(status_of(error), rich.BadRequest)[0].field_violations[0].description
    return description
