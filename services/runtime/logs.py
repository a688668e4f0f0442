"""Logs of a service process: one line of text or one JSON object per record, with the request id, without secrets."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
from typing import Any, TextIO

from services.runtime.context import current_request_id
from services.runtime.settings import ServiceSettings
from services.runtime.tracing import current_traceparent

REDACTED = "[redacted]"
MAX_MESSAGE_CHARS = 8_000

# What credentials look like: bearer headers, JWTs, our API keys, providers' keys, passwords in URLs, and any
# `secret=...` that somebody prints.
_SECRETS = [
    (re.compile(r"(?i)\b(bearer)\s+[^\s\"',;]+"), rf"\1 {REDACTED}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), REDACTED),
    (re.compile(r"\b(?:llmlab|sk|rk|pk)[_-][A-Za-z0-9_-]{16,}"), REDACTED),
    (re.compile(r"(://[^:/@\s]*:)[^@/\s]+@"), rf"\1{REDACTED}@"),
    (
        re.compile(
            r"(?i)\b((?:[\w-]*[_-])?(?:password|passwd|secret|api[_-]?key|token|authorization))(\"?'?\s*[=:]\s*)(?!\[redacted\])[^\s,;&}]+"
        ),
        rf"\1\2{REDACTED}",
    ),
]


def redact(text: str) -> str:
    """The text without what looks like a credential.

    >>> redact("postgresql://me:hush@db/llmlab")
    'postgresql://me:[redacted]@db/llmlab'
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def configure_logging(settings: ServiceSettings, stream: TextIO | None = None) -> None:
    """Send all records of this process to `stream` (standard error) in the format and from the level of the settings.

    It replaces the root logger's handlers. Other libraries' loggers report from WARNING on.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(settings.service) if settings.log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    for name in ("llmlab", "services"):
        logging.getLogger(name).setLevel(settings.log_level)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, service, logger, message, request_id, trace_id and span_id, fields, stack.

    The fields are those of `extra={"fields": {...}}`.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object, without secrets."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": redact(record.getMessage())[:MAX_MESSAGE_CHARS],
        }
        if request_id := current_request_id():
            entry["request_id"] = request_id
        if traceparent := current_traceparent():
            _, entry["trace_id"], entry["span_id"], _ = traceparent.split("-")
        for key, value in _fields(record).items():
            entry.setdefault(key, redact(value) if isinstance(value, str) else value)
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value ... [request id]`, then the stack trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and its stack trace below, without secrets."""
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        request_id = current_request_id()
        # A line break in a message could pretend to be another record.
        message = f"{record.getMessage()}{fields}"[:MAX_MESSAGE_CHARS].replace("\n", "\\n")
        line = f"{_time(record)} {record.levelname} {record.name}: {message}"
        if request_id:
            line += f" [{request_id}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redact(line)


def _time(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}
