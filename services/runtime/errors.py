"""What a service can refuse, as exceptions of plain Python that domain modules raise.

Each error carries one `reason`: a name of the proto enum `llmlab.api.common.v1.ErrorReason` without its prefix. The
class fixes the canonical gRPC code. `services.runtime.status` turns an error into a `google.rpc.Status` and back, so
that an error raised in one service reads the same in the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

INTERRUPTED_KEY = "interrupted"
"""In the metadata of an error that ended a call which had begun: what the call did until then is done."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that breaks a rule: its path (`models[2].name`) and what is expected of it."""

    field: str
    description: str


class DomainError(Exception):
    """A refusal or failure with a reason that a program can branch on and a message that tells a person what to do.

    Attributes:
        code: canonical gRPC code name, for example "NOT_FOUND"; fixed by the class, `code=` overrides it.
        reason: ErrorReason name without prefix, for example "BUDGET_EXCEEDED".
        message: what happened and what to do next. Leaves the process: never holds a secret or a stack trace.
        retry_after_ms: when to try again at the earliest, milliseconds from now; None where waiting does not help.
        violations: the fields that are wrong; become `google.rpc.BadRequest`.
        subject: what the precondition or quota is about, for example "budget:bud_1".
        metadata: more facts for programs; becomes `ErrorInfo.metadata`.
        details: further protobuf messages for the status. Only rpc layers set it; domain modules know no protobuf.
    """

    canonical_code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        code: str | None = None,
        retry_after_ms: int | None = None,
        violations: Sequence[FieldViolation] = (),
        subject: str = "",
        metadata: Mapping[str, str] | None = None,
        details: Sequence[Any] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.code = code or self.canonical_code
        self.retry_after_ms = retry_after_ms
        self.violations = tuple(violations)
        self.subject = subject
        self.metadata = dict(metadata or {})
        self.details = tuple(details)

    @property
    def field(self) -> str:
        """The first field that is wrong; empty where the error is not about a field."""
        return self.violations[0].field if self.violations else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have signatures of their own, so the default (class, args) can't rebuild them in another process.
        return _rebuild, (type(self), self.message), self.__dict__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}: {self.message})"


def _rebuild(cls: type[DomainError], message: str) -> DomainError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    return error


class InvalidRequest(DomainError):
    """The request cannot work as it is, and no single field is to blame, or several are. INVALID_ARGUMENT."""

    canonical_code = "INVALID_ARGUMENT"


class InvalidField(InvalidRequest):
    """One field of the request is wrong. INVALID_ARGUMENT, with a BadRequest that names the field."""

    def __init__(self, field: str, message: str, reason: str = "INVALID_FIELD", **more: Any) -> None:
        violations = more.pop("violations", (FieldViolation(field, message),))
        super().__init__(reason, message, violations=violations, **more)


class NotFound(DomainError):
    """The named thing does not exist in the caller's project. NOT_FOUND."""

    canonical_code = "NOT_FOUND"

    def __init__(self, kind: str, identifier: str, reason: str = "NOT_FOUND", **more: Any) -> None:
        more.setdefault("metadata", {"kind": kind, "id": identifier})
        subject = f"{kind[:1].upper()}{kind[1:].replace('_', ' ')} {identifier!r}"
        super().__init__(reason, f"{subject} does not exist in this project; check the id.", **more)


class AlreadyExists(DomainError):
    """Something with this name or id is there already. ALREADY_EXISTS."""

    canonical_code = "ALREADY_EXISTS"


class WrongState(DomainError):
    """The thing, or the set-up, does not allow this now; waiting alone does not help. FAILED_PRECONDITION."""

    canonical_code = "FAILED_PRECONDITION"


class PermissionDenied(DomainError):
    """The credential is good but may not do this. PERMISSION_DENIED."""

    canonical_code = "PERMISSION_DENIED"


class Unauthenticated(DomainError):
    """There is no credential that this server accepts. UNAUTHENTICATED."""

    canonical_code = "UNAUTHENTICATED"


class ResourceExhausted(DomainError):
    """A rate, a quota, a budget or a bounded queue is used up. RESOURCE_EXHAUSTED."""

    canonical_code = "RESOURCE_EXHAUSTED"


class Unavailable(DomainError):
    """Something that is needed cannot be reached; the same request may work later. UNAVAILABLE."""

    canonical_code = "UNAVAILABLE"


class DeadlineExceeded(DomainError):
    """The time for the request ran out. DEADLINE_EXCEEDED."""

    canonical_code = "DEADLINE_EXCEEDED"


class Cancelled(DomainError):
    """The caller gave the request up. CANCELLED."""

    canonical_code = "CANCELLED"


class Conflict(DomainError):
    """The thing was changed by somebody else since it was read; read it again. ABORTED."""

    canonical_code = "ABORTED"


class OutOfRange(DomainError):
    """The position is no longer, or not yet, there. OUT_OF_RANGE."""

    canonical_code = "OUT_OF_RANGE"


class Unimplemented(DomainError):
    """The server has no such RPC. UNIMPLEMENTED."""

    canonical_code = "UNIMPLEMENTED"


class Internal(DomainError):
    """A fault of the server or of something behind it. INTERNAL."""

    canonical_code = "INTERNAL"


ERROR_CLASSES: Mapping[str, type[DomainError]] = {
    cls.canonical_code: cls
    for cls in (
        InvalidRequest,
        NotFound,
        AlreadyExists,
        WrongState,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Conflict,
        OutOfRange,
        Unimplemented,
        Internal,
    )
}
"""Canonical code name -> the class that stands for it."""


def error_of_code(code: str, reason: str, message: str, **more: Any) -> DomainError:
    """The error of the class that stands for `code`; keywords as in DomainError.

    It exists because the classes differ in their constructors, while an error that arrives from a peer has all of the
    general ones. An unknown code gives a plain DomainError with that code.
    """
    error = _rebuild(ERROR_CLASSES.get(code, DomainError), message)
    DomainError.__init__(error, reason, message, code=code, **more)
    return error
