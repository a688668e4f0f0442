"""The rules that the contracts declare (protovalidate), checked on every request message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import cache
from typing import Any

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from services.runtime.context import Call
from services.runtime.errors import DomainError, FieldViolation, InvalidRequest
from services.runtime.interceptors.stage import Stage


@cache
def _validator() -> Validator:
    """The validator of this process: compiling a message's rules takes milliseconds, so every server shares them."""
    return Validator()


class ValidationStage(Stage):
    """Refuses a request that breaks a rule, naming every field. One above `off_loop_bytes` is checked in a thread."""

    def __init__(self, *, off_loop_bytes: int) -> None:
        self._validator = _validator()
        self._off_loop_bytes = off_loop_bytes

    def message(self, call: Call, request: Message) -> Awaitable[None] | None:
        """Check one request message."""
        if call.method.infrastructure:
            return None
        if request.ByteSize() > self._off_loop_bytes:
            return self._check_in_thread(request)
        violations = self._validator.collect_violations(request)
        if violations:
            raise invalid(violations)
        return None

    async def _check_in_thread(self, request: Message) -> None:
        violations = await asyncio.to_thread(self._validator.collect_violations, request)
        if violations:
            raise invalid(violations)


def invalid(violations: Sequence[Violation]) -> DomainError:
    """The refusal that names every field that breaks a rule."""
    fields = [
        FieldViolation(field_path(violation.proto.field), violation.proto.message or violation.proto.rule_id)
        for violation in violations
    ]
    first = ": ".join(part for part in (fields[0].field, fields[0].description) if part)
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return InvalidRequest("INVALID_FIELD", f"{first}{more}", violations=fields)


def field_path(path: Any) -> str:
    """A `buf.validate.FieldPath` as people write it: `models[2].name`, `labels["env"]`."""
    text = ""
    for element in path.elements if path is not None else ():
        text += f".{element.field_name}" if text else element.field_name
        subscript = element.subscript
        if subscript is not None:
            text += f'["{subscript.value}"]' if isinstance(subscript.value, str) else f"[{subscript.value}]"
    return text
