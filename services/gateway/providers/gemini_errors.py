"""What Gemini's errors mean. They are `google.rpc.Status` as JSON: a canonical code in words, and details by type.

Reference: https://ai.google.dev/gemini-api/docs/troubleshooting
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.gateway.failures import Failure, ProviderFault, classify, retry_after_of
from services.gateway.providers.json_fields import objects_of, value_of

_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
# Google sends a retry delay of seconds also with a quota of the day, which is used up until midnight.
_DAILY_QUOTA = "PerDay"


class GeminiErrors:
    """See ErrorReader."""

    def status_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """The failure of an answer with an error status."""
        said = value_of(body)
        return classify(gemini_fault(status, error_of(said) or said, headers))

    def connection_failure(self, message: str, *, dispatched: bool) -> Failure:
        """The failure of a connection."""
        shown = f"the connection to the provider failed: {message}; check its base URL and the network"
        return Failure("NETWORK_ERROR", shown, dispatched=dispatched)


def error_of(body: Any) -> Any:
    """The error in a body; None where it has none. Streams without `alt=sse` are lists, and so are their errors."""
    if isinstance(body, list) and body:
        body = body[0]
    return body.get("error") if isinstance(body, dict) else None


def gemini_fault(status: int, error: Any, headers: Mapping[str, str]) -> ProviderFault:
    """What an error says; any shape is accepted. `status` 0: it came inside a stream, and its own code counts."""
    if not isinstance(error, dict):
        return ProviderFault(status, error if isinstance(error, str) else "")
    details = objects_of(error.get("details"))
    code = error.get("code")
    return ProviderFault(
        status=status or (code if isinstance(code, int) else 0),
        message=str(error.get("message") or ""),
        code=_quota_code(details) or _member(details, _ERROR_INFO, "reason"),
        type=str(error.get("status") or ""),
        retry_after=retry_after_of(headers) or _member(details, _RETRY_INFO, "retryDelay").removesuffix("s"),
        request_id=headers.get("x-goog-request-id", ""),
    )


def _member(details: list[dict[str, Any]], kind: str, name: str) -> str:
    found = (detail.get(name) for detail in details if detail.get("@type") == kind)
    return next((value for value in found if isinstance(value, str)), "")


def _quota_code(details: list[dict[str, Any]]) -> str:
    for detail in details:
        if detail.get("@type") == _QUOTA_FAILURE:
            for violation in objects_of(detail.get("violations")):
                if _DAILY_QUOTA in str(violation.get("quotaId") or ""):
                    return "insufficient_quota"
    return ""
