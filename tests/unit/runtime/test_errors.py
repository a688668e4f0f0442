import pickle

import grpc
import pytest

from llmlab.api.common.v1 import error_pb2
from services.runtime.errors import (
    ERROR_CLASSES,
    AlreadyExists,
    DomainError,
    FieldViolation,
    InvalidField,
    NotFound,
    ResourceExhausted,
    error_of_code,
)


def test_every_class_stands_for_a_canonical_code() -> None:
    assert set(ERROR_CLASSES) <= {code.name for code in grpc.StatusCode}
    assert all(cls.canonical_code == code for code, cls in ERROR_CLASSES.items())


def test_default_reasons_are_values_of_the_proto_enum() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118 (not a dict)

    assert InvalidField("name", "is empty").reason in names
    assert NotFound("run", "run_1").reason in names


def test_an_invalid_field_names_the_field() -> None:
    error = InvalidField("spec.models[0]", "is not known", reason="MODEL_NOT_FOUND")

    assert (error.field, error.reason, error.code) == ("spec.models[0]", "MODEL_NOT_FOUND", "INVALID_ARGUMENT")
    assert error.violations == (FieldViolation("spec.models[0]", "is not known"),)


def test_not_found_says_what_is_missing() -> None:
    error = NotFound("run", "run_1")

    assert error.message.startswith("Run 'run_1' does not exist")
    assert error.metadata == {"kind": "run", "id": "run_1"}
    assert error.field == ""


def test_a_code_can_be_overridden() -> None:
    assert AlreadyExists("REQUEST_ID_REUSED", "used before", code="ABORTED").code == "ABORTED"


@pytest.mark.parametrize(
    "error",
    [
        InvalidField("name", "is empty"),
        NotFound("run", "run_1"),
        ResourceExhausted("BUDGET_EXCEEDED", "no money", retry_after_ms=7, subject="budget:b", metadata={"a": "b"}),
        DomainError("INTERNAL", "odd", code="DATA_LOSS"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_out_of_a_worker_process(error: DomainError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert copy.__dict__ == error.__dict__
    assert str(copy) == error.message


@pytest.mark.parametrize("code", [*ERROR_CLASSES, "DATA_LOSS"])
def test_an_error_is_rebuilt_by_its_code(code: str) -> None:
    error = error_of_code(code, "SOME_REASON", "text", retry_after_ms=5)

    assert type(error) is ERROR_CLASSES.get(code, DomainError)
    assert (error.code, error.reason, error.message, error.retry_after_ms) == (code, "SOME_REASON", "text", 5)


def test_the_class_found_by_a_field_error_s_code_catches_it() -> None:
    assert isinstance(InvalidField("a", "b"), ERROR_CLASSES["INVALID_ARGUMENT"])
    assert "INVALID_FIELD: b" in repr(InvalidField("a", "b"))
