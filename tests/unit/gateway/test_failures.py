"""The error table: every row of what providers say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.gateway.failures import (
    PARTIAL_TEXT_MAX,
    REASON_OF_CODE,
    REASON_OF_STATUS,
    RULES,
    Failure,
    ProviderFault,
    classify,
    refused,
    retry_after_to_ms,
    with_partial,
)
from services.gateway.usage import TokenUsage


@pytest.mark.parametrize(
    ("status", "reason", "code", "error_class", "retryable"),
    [
        (400, "INVALID_REQUEST", "INVALID_ARGUMENT", "invalid_request", False),
        (401, "PROVIDER_AUTH", "FAILED_PRECONDITION", "invalid_request", False),
        (402, "PROVIDER_BILLING", "FAILED_PRECONDITION", "rate_limit", False),
        (403, "PROVIDER_FORBIDDEN", "PERMISSION_DENIED", "invalid_request", False),
        (404, "MODEL_NOT_FOUND", "NOT_FOUND", "invalid_request", False),
        (408, "PROVIDER_TIMEOUT", "UNAVAILABLE", "network_error", True),
        (409, "PROVIDER_CONFLICT", "ABORTED", "server_error", True),
        (413, "INVALID_REQUEST", "INVALID_ARGUMENT", "invalid_request", False),
        (418, "INVALID_REQUEST", "INVALID_ARGUMENT", "invalid_request", False),
        (422, "INVALID_REQUEST", "INVALID_ARGUMENT", "invalid_request", False),
        (429, "RATE_LIMITED", "RESOURCE_EXHAUSTED", "rate_limit", True),
        (500, "PROVIDER_ERROR", "INTERNAL", "server_error", True),
        (502, "PROVIDER_UNAVAILABLE", "UNAVAILABLE", "server_error", True),
        (503, "PROVIDER_UNAVAILABLE", "UNAVAILABLE", "server_error", True),
        (504, "PROVIDER_UNAVAILABLE", "UNAVAILABLE", "server_error", True),
        (529, "PROVIDER_OVERLOADED", "UNAVAILABLE", "server_error", True),
        (599, "PROVIDER_ERROR", "INTERNAL", "server_error", True),
    ],
)
def test_status(status: int, reason: str, code: str, error_class: str, *, retryable: bool) -> None:
    failure = classify(ProviderFault(status, "no"))
    assert (failure.reason, failure.rule.code, failure.rule.error_class) == (reason, code, error_class)
    assert failure.retryable is retryable
    assert failure.provider_status == status
    assert failure.dispatched


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ProviderFault(429, "", code="insufficient_quota"), "PROVIDER_QUOTA"),
        (ProviderFault(429, "", type="insufficient_quota"), "PROVIDER_QUOTA"),
        (ProviderFault(400, "", code="context_length_exceeded"), "CONTEXT_LENGTH_EXCEEDED"),
        (ProviderFault(400, "", code="content_policy_violation"), "CONTENT_POLICY"),
        (ProviderFault(400, "prompt is too long: 210 k", type="invalid_request_error"), "CONTEXT_LENGTH_EXCEEDED"),
        (ProviderFault(400, "Your credit balance is too low", type="invalid_request_error"), "PROVIDER_BILLING"),
        (ProviderFault(400, "reached your specified API usage limits", type="invalid_request_error"), "PROVIDER_QUOTA"),
        (ProviderFault(500, "", type="overloaded_error"), "PROVIDER_OVERLOADED"),
        # Inside a 200 stream there is no status.
        (ProviderFault(0, "Overloaded", type="overloaded_error"), "PROVIDER_OVERLOADED"),
        (ProviderFault(0, "bad", type="invalid_request_error"), "INVALID_REQUEST"),
        (ProviderFault(0, "Rate limited", code="429"), "RATE_LIMITED"),
        (ProviderFault(0, "Provider disconnected", code="502"), "PROVIDER_UNAVAILABLE"),
        (ProviderFault(0, "something", type="new_kind_of_error"), "PROVIDER_ERROR"),
        # The status is the last word where both are exact.
        (ProviderFault(403, "", type="not_found_error"), "PROVIDER_FORBIDDEN"),
    ],
)
def test_the_body_says_more_than_the_status(fault: ProviderFault, reason: str) -> None:
    assert classify(fault).reason == reason


def test_every_reason_of_the_tables_has_a_rule() -> None:
    assert {*REASON_OF_STATUS.values(), *REASON_OF_CODE.values()} <= RULES.keys()


def test_a_quota_is_never_retried_even_where_the_provider_says_when() -> None:
    failure = classify(ProviderFault(429, "", code="insufficient_quota", retry_after="5"))
    assert not failure.retryable
    assert failure.retry_after_ms == 0


NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected_ms"),
    [
        ("2", 2_000),
        (" 0.25 ", 250),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30_000),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0),
        ("999999999", 86_400_000),
        ("", 0),
        ("0", 0),
        ("-3", 0),
        ("nan", 0),
        ("soon", 0),
    ],
)
def test_retry_after(value: str, expected_ms: int) -> None:
    assert retry_after_to_ms(value, NOW) == expected_ms


def test_nothing_is_owed_for_what_was_not_sent() -> None:
    refusal = refused("BUDGET_EXCEEDED", "the budget is used up").failure
    assert with_partial(refusal, "text", TokenUsage(1), output_began=True) is refusal


def test_a_cut_stream_is_retryable_before_its_first_token_only() -> None:
    cut = Failure("STREAM_TRUNCATED", "cut", dispatched=True)
    assert with_partial(cut, "", None, output_began=False).retryable
    assert not with_partial(cut, "text", None, output_began=True).retryable


def test_partial_text_is_bounded() -> None:
    cut = Failure("STREAM_TRUNCATED", "cut", dispatched=True)
    assert len(with_partial(cut, "x" * 10_000, None, output_began=True).partial_text) == PARTIAL_TEXT_MAX
