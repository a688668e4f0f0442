"""Gemini's errors: what their bodies mean."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.gateway.providers.gemini_errors import GeminiErrors

RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.5s"}


def quota(quota_id: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [7, {"quotaId": quota_id}]}


def info(reason: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


@pytest.mark.parametrize(
    ("status", "name", "message", "details", "reason", "retry_after_ms"),
    [
        (400, "INVALID_ARGUMENT", "bad", [], "INVALID_REQUEST", 0),
        (400, "INVALID_ARGUMENT", "API key not valid.", [info("API_KEY_INVALID")], "PROVIDER_AUTH", 0),
        (400, "FAILED_PRECONDITION", "User location is not supported", [], "PROVIDER_BILLING", 0),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            [],
            "CONTEXT_LENGTH_EXCEEDED",
            0,
        ),
        (401, "UNAUTHENTICATED", "who?", [], "PROVIDER_AUTH", 0),
        (402, "RESOURCE_EXHAUSTED", "no credit", [], "PROVIDER_BILLING", 0),
        (403, "PERMISSION_DENIED", "no", [], "PROVIDER_FORBIDDEN", 0),
        (404, "NOT_FOUND", "no such model", [], "MODEL_NOT_FOUND", 0),
        (429, "RESOURCE_EXHAUSTED", "slow", [RETRY, quota("RequestsPerMinutePerProject")], "RATE_LIMITED", 17_500),
        (429, "RESOURCE_EXHAUSTED", "slow", [RETRY, quota("RequestsPerDayPerProject")], "PROVIDER_QUOTA", 0),
        (500, "INTERNAL", "oops", [], "PROVIDER_ERROR", 0),
        (503, "UNAVAILABLE", "the model is overloaded", [], "PROVIDER_UNAVAILABLE", 0),
        (504, "DEADLINE_EXCEEDED", "late", [], "PROVIDER_UNAVAILABLE", 0),
    ],
)
def test_statuses(
    status: int, name: str, message: str, details: list[dict[str, Any]], reason: str, retry_after_ms: int
) -> None:
    error = {"code": status, "status": name, "message": message, "details": details}
    for body in ({"error": error}, [{"error": error}]):
        failure = GeminiErrors().status_failure(status, {}, orjson.dumps(body))
        assert (failure.reason, failure.retry_after_ms) == (reason, retry_after_ms)
        assert (failure.provider_status, failure.message) == (status, message)


@pytest.mark.parametrize(
    "body", [b"", b"<h1>", b"[]", b"7", b'{"error": 7}', b'{"error": {"details": [1], "code": "x"}}']
)
def test_any_body_is_accepted(body: bytes) -> None:
    failure = GeminiErrors().status_failure(429, {"retry-after": "2"}, body)
    assert failure.reason == "RATE_LIMITED"


def test_the_header_goes_before_the_body() -> None:
    body = orjson.dumps({"error": {"status": "RESOURCE_EXHAUSTED", "details": [RETRY]}})
    assert GeminiErrors().status_failure(429, {"retry-after": "2"}, body).retry_after_ms == 2_000
