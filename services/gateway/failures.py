"""How a call can fail: the error table of the gateway, as data, and the reading of a provider's error body.

The table is the whole policy: what a provider says becomes one reason, and the reason fixes the gRPC code, the public
class and whether the same call may work later. Sources: the error pages of OpenAI
(https://platform.openai.com/docs/guides/error-codes), Anthropic (https://docs.anthropic.com/en/api/errors) and Google
(https://ai.google.dev/gemini-api/docs/troubleshooting).
"""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from services.gateway.usage import TokenUsage

ErrorClass = Literal["network_error", "rate_limit", "invalid_request", "server_error"]
FallbackKind = Literal["general", "context_window", "content_policy"]

_MESSAGE_MAX = 2_000
PARTIAL_TEXT_MAX = 4_000
_RETRY_AFTER_MAX_S = 86_400


@dataclass(frozen=True, slots=True)
class Rule:
    """What a reason means: for the caller, and for the circuit breaker of the deployment that gave it.

    `fallback` says which other models may still answer the call; None: none.
    """

    code: str
    error_class: ErrorClass
    retryable: bool
    faults_deployment: bool = False
    fallback: FallbackKind | None = None


RULES: Mapping[str, Rule] = {
    "INVALID_REQUEST": Rule("INVALID_ARGUMENT", "invalid_request", False),
    "INVALID_FIELD": Rule("INVALID_ARGUMENT", "invalid_request", False),
    "CONTEXT_LENGTH_EXCEEDED": Rule("INVALID_ARGUMENT", "invalid_request", False, fallback="context_window"),
    "CONTENT_POLICY": Rule("INVALID_ARGUMENT", "invalid_request", False, fallback="content_policy"),
    "PROVIDER_AUTH": Rule("FAILED_PRECONDITION", "invalid_request", False, fallback="general"),
    "PROVIDER_BILLING": Rule("FAILED_PRECONDITION", "rate_limit", False, fallback="general"),
    "PROVIDER_FORBIDDEN": Rule("PERMISSION_DENIED", "invalid_request", False),
    "PROVIDER_NOT_CONFIGURED": Rule("FAILED_PRECONDITION", "invalid_request", False),
    "MODEL_NOT_FOUND": Rule("NOT_FOUND", "invalid_request", False, fallback="general"),
    "PROVIDER_TIMEOUT": Rule("UNAVAILABLE", "network_error", True, faults_deployment=True, fallback="general"),
    "PROVIDER_CONFLICT": Rule("ABORTED", "server_error", True, fallback="general"),
    "RATE_LIMITED": Rule("RESOURCE_EXHAUSTED", "rate_limit", True, fallback="general"),
    "PROVIDER_QUOTA": Rule("RESOURCE_EXHAUSTED", "rate_limit", False),
    "PROVIDER_ERROR": Rule("INTERNAL", "server_error", True, faults_deployment=True, fallback="general"),
    "PROVIDER_UNAVAILABLE": Rule("UNAVAILABLE", "server_error", True, faults_deployment=True, fallback="general"),
    "PROVIDER_OVERLOADED": Rule("UNAVAILABLE", "server_error", True, faults_deployment=True, fallback="general"),
    "NETWORK_ERROR": Rule("UNAVAILABLE", "network_error", True, faults_deployment=True, fallback="general"),
    "CIRCUIT_OPEN": Rule("UNAVAILABLE", "server_error", True, fallback="general"),
    # Only before the first token: see Failure.retryable.
    "STREAM_TRUNCATED": Rule("UNAVAILABLE", "network_error", True, faults_deployment=True, fallback="general"),
    "CALL_ALREADY_DISPATCHED": Rule("ALREADY_EXISTS", "invalid_request", False),
    "BUDGET_EXCEEDED": Rule("RESOURCE_EXHAUSTED", "rate_limit", False),
    "UNPRICED": Rule("FAILED_PRECONDITION", "invalid_request", False),
    "HOLD_TOMBSTONED": Rule("FAILED_PRECONDITION", "invalid_request", False),
    "HOLD_RESOLVED": Rule("FAILED_PRECONDITION", "invalid_request", False),
    "DEPENDENCY_UNAVAILABLE": Rule("UNAVAILABLE", "server_error", True),
    "SHUTTING_DOWN": Rule("UNAVAILABLE", "server_error", True),
    "OVERLOADED": Rule("RESOURCE_EXHAUSTED", "rate_limit", True),
    # Where the call had not left it may be tried again: see Failure.retryable.
    "DEADLINE_EXCEEDED": Rule("DEADLINE_EXCEEDED", "network_error", False),
    "CANCELLED": Rule("CANCELLED", "network_error", False),
    "INTERNAL": Rule("INTERNAL", "server_error", False),
}
"""Reason -> its meaning."""

REASON_OF_STATUS: Mapping[int, str] = {
    400: "INVALID_REQUEST",
    401: "PROVIDER_AUTH",
    402: "PROVIDER_BILLING",
    403: "PROVIDER_FORBIDDEN",
    404: "MODEL_NOT_FOUND",
    408: "PROVIDER_TIMEOUT",
    409: "PROVIDER_CONFLICT",
    413: "INVALID_REQUEST",
    422: "INVALID_REQUEST",
    429: "RATE_LIMITED",
    498: "PROVIDER_OVERLOADED",
    500: "PROVIDER_ERROR",
    502: "PROVIDER_UNAVAILABLE",
    503: "PROVIDER_UNAVAILABLE",
    504: "PROVIDER_UNAVAILABLE",
    529: "PROVIDER_OVERLOADED",
}
"""HTTP status of a provider -> reason. 498 is Groq's "flex tier capacity exceeded"."""

REASON_OF_CODE: Mapping[str, str] = {
    # `error.code` and `error.type` of the OpenAI family.
    "context_length_exceeded": "CONTEXT_LENGTH_EXCEEDED",
    "string_above_max_length": "CONTEXT_LENGTH_EXCEEDED",
    "content_policy_violation": "CONTENT_POLICY",
    "content_filter": "CONTENT_POLICY",
    "moderation_blocked": "CONTENT_POLICY",
    "insufficient_quota": "PROVIDER_QUOTA",
    "billing_hard_limit_reached": "PROVIDER_QUOTA",
    "billing_not_active": "PROVIDER_BILLING",
    "invalid_api_key": "PROVIDER_AUTH",
    "model_not_found": "MODEL_NOT_FOUND",
    "rate_limit_exceeded": "RATE_LIMITED",
    "server_error": "PROVIDER_ERROR",
    "engine_overloaded": "PROVIDER_OVERLOADED",
    # `error.type` of Anthropic, which is the only hint inside a 200 stream.
    "invalid_request_error": "INVALID_REQUEST",
    "authentication_error": "PROVIDER_AUTH",
    "billing_error": "PROVIDER_BILLING",
    "permission_error": "PROVIDER_FORBIDDEN",
    "not_found_error": "MODEL_NOT_FOUND",
    "request_too_large": "INVALID_REQUEST",
    "rate_limit_error": "RATE_LIMITED",
    "timeout_error": "PROVIDER_TIMEOUT",
    "conflict_error": "PROVIDER_CONFLICT",
    "api_error": "PROVIDER_ERROR",
    "overloaded_error": "PROVIDER_OVERLOADED",
    # `error.status` of Google, and the `reason` in its details.
    "INVALID_ARGUMENT": "INVALID_REQUEST",
    "OUT_OF_RANGE": "INVALID_REQUEST",
    # Gemini: "the free tier is not available in your country, enable billing".
    "FAILED_PRECONDITION": "PROVIDER_BILLING",
    "UNAUTHENTICATED": "PROVIDER_AUTH",
    "API_KEY_INVALID": "PROVIDER_AUTH",
    "PERMISSION_DENIED": "PROVIDER_FORBIDDEN",
    "NOT_FOUND": "MODEL_NOT_FOUND",
    "ABORTED": "PROVIDER_CONFLICT",
    "RESOURCE_EXHAUSTED": "RATE_LIMITED",
    "CANCELLED": "PROVIDER_TIMEOUT",
    "DEADLINE_EXCEEDED": "PROVIDER_TIMEOUT",
    "INTERNAL": "PROVIDER_ERROR",
    "UNKNOWN": "PROVIDER_ERROR",
    "UNAVAILABLE": "PROVIDER_UNAVAILABLE",
}
"""Code or type in an error body -> reason."""

REASON_OF_PHRASE: Mapping[str, str] = {
    "prompt is too long": "CONTEXT_LENGTH_EXCEEDED",
    "maximum context length": "CONTEXT_LENGTH_EXCEEDED",
    "exceeds the maximum number of tokens": "CONTEXT_LENGTH_EXCEEDED",
    "credit balance is too low": "PROVIDER_BILLING",
    "specified api usage limits": "PROVIDER_QUOTA",
    "insufficient credits": "PROVIDER_BILLING",
}
"""Phrase in a message -> reason, for providers that hide these cases behind a plain 400."""

# A reason that says no more than "the request is wrong" gives way to a more exact one found elsewhere in the body.
_VAGUE = frozenset({"INVALID_REQUEST", "PROVIDER_ERROR"})


# After these the provider may have worked, and charged, without our having seen it. Not so where it said itself that it
# gave up (408).
_UNSEEN_WORK = frozenset({"NETWORK_ERROR", "STREAM_TRUNCATED", "DEADLINE_EXCEEDED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Failure:
    """How one call failed; the domain's side of `llmlab.api.common.v1.CallError`.

    `dispatched` is False where nothing can have reached the provider: then nothing is owed. `output_began` says whether
    any content arrived before the failure. `field` is the path of the request that is wrong, empty where none is.
    """

    reason: str
    message: str
    dispatched: bool
    retry_after_ms: int = 0
    provider_status: int = 0
    provider_request_id: str = ""
    partial_text: str = ""
    usage: TokenUsage | None = None
    output_began: bool = False
    field: str = ""

    @property
    def rule(self) -> Rule:
        """The gRPC code, class and retryability of the reason."""
        return RULES.get(self.reason, RULES["INTERNAL"])

    @property
    def ambiguous(self) -> bool:
        """Whether the provider may have worked, and charge, without our having seen it."""
        return self.dispatched and self.reason in _UNSEEN_WORK

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later.

        A cut stream only before its first token: what came was shown. A deadline only where nothing had left: another
        try costs nothing, while an answer that takes too long takes too long again, and is paid for again.
        """
        if self.reason == "STREAM_TRUNCATED" and self.output_began:
            return False
        if self.reason == "DEADLINE_EXCEEDED":
            return not self.dispatched
        return self.rule.retryable


class CallFailed(Exception):
    """Raised by providers and layers of the pipeline; carries the failure as a value."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.reason}: {failure.message}")
        self.failure = failure


def refused(reason: str, message: str, *, field: str = "", retry_after_ms: int = 0) -> CallFailed:
    """A failure before anything was sent to a provider."""
    return CallFailed(Failure(reason, message, dispatched=False, field=field, retry_after_ms=retry_after_ms))


@dataclass(frozen=True, slots=True)
class ProviderFault:
    """What a provider said when it failed, taken from its status, headers and body; nothing interpreted.

    `status` is 0 where the error came inside a stream that had begun with 200.
    """

    status: int
    message: str
    code: str = ""
    type: str = ""
    retry_after: str = ""
    request_id: str = ""


def classify(fault: ProviderFault) -> Failure:
    """The failure that a provider's error means.

    The body's code and type are more exact than the status (a 429 can be a quota, a 400 a spend limit), and inside a
    stream they are all there is. Some gateways put an HTTP status into `code`.
    """
    status = fault.status or _status_in(fault.code)
    by_status = REASON_OF_STATUS.get(status) or ("PROVIDER_ERROR" if status >= 500 or not status else "INVALID_REQUEST")
    candidates = [REASON_OF_CODE.get(fault.code), REASON_OF_CODE.get(fault.type)]
    message = fault.message.lower()
    candidates += [reason for phrase, reason in REASON_OF_PHRASE.items() if phrase in message]
    exact = [reason for reason in candidates if reason and reason not in _VAGUE]
    vague = [reason for reason in candidates if reason]
    reason = by_status
    if exact and (by_status in _VAGUE or exact[0] == "PROVIDER_QUOTA"):
        reason = exact[0]
    elif vague and not status:
        reason = vague[0]
    retry_after_ms = retry_after_to_ms(fault.retry_after) if RULES[reason].retryable else 0
    return Failure(
        reason=reason,
        message=(fault.message or f"the provider answered with status {status}")[:_MESSAGE_MAX],
        dispatched=True,
        retry_after_ms=retry_after_ms,
        provider_status=status,
        provider_request_id=fault.request_id,
    )


def retry_after_of(headers: Mapping[str, str]) -> str:
    """What an answer's headers ask to wait, as Retry-After has it; OpenAI and Azure also say it in milliseconds."""
    milliseconds = headers.get("retry-after-ms", "").strip()
    if milliseconds.isdecimal():
        return str(int(milliseconds) / 1_000)
    return headers.get("retry-after", "")


def retry_after_to_ms(value: str, now: datetime | None = None) -> int:
    """Milliseconds that a Retry-After header asks to wait: seconds (also fractions) or an HTTP date; 0 for neither.

    Bounded to a day. RFC 9110, section 10.2.3.
    """
    value = value.strip()
    if not value:
        return 0
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return 0
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        seconds = (at - (now or datetime.now(UTC))).total_seconds()
    if not 0 < seconds <= _RETRY_AFTER_MAX_S:
        return 0 if not seconds > 0 else _RETRY_AFTER_MAX_S * 1_000
    return max(1, round(seconds * 1_000))


def with_partial(failure: Failure, text: str, usage: TokenUsage | None, *, output_began: bool) -> Failure:
    """The failure with what had arrived before it; nothing is added where nothing was dispatched."""
    if not failure.dispatched:
        return failure
    return replace(failure, partial_text=text[:PARTIAL_TEXT_MAX], usage=usage, output_began=output_began)


def _status_in(code: str) -> int:
    return int(code) if code.isdigit() and 400 <= int(code) < 600 else 0
