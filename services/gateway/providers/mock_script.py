"""What the mock is told to do: a model's own manner, the settings of the process, and the options of one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from services.gateway.calls import OptionValue
from services.gateway.failures import ProviderFault, refused
from services.gateway.providers.mock_text import Voice

TEXT_SEPARATOR = "\n---\n"

TOKEN_CHARACTERS = 4
"""A mock token is this many characters, so that counts are exact and agree with the gateway's estimates."""

ERROR_KINDS: Mapping[str, ProviderFault | None] = {
    "rate_limit": ProviderFault(429, "the mock's rate limit is reached", type="rate_limit_exceeded", retry_after="1"),
    "quota": ProviderFault(429, "the mock's quota is used up", code="insufficient_quota"),
    "invalid_request": ProviderFault(400, "the mock refuses this request", type="invalid_request_error"),
    "context_length": ProviderFault(400, "the prompt is too long for the mock", code="context_length_exceeded"),
    "content_policy": ProviderFault(400, "the mock's content policy refuses this", code="content_policy_violation"),
    "auth": ProviderFault(401, "the mock does not know this key", code="invalid_api_key"),
    "billing": ProviderFault(402, "the mock wants to be paid first"),
    "forbidden": ProviderFault(403, "the mock forbids this"),
    "not_found": ProviderFault(404, "the mock has no such model", code="model_not_found"),
    "timeout": ProviderFault(408, "the mock timed out"),
    "conflict": ProviderFault(409, "the mock is busy with the same request"),
    "server_error": ProviderFault(500, "the mock failed", type="server_error"),
    "unavailable": ProviderFault(503, "the mock is not available"),
    "overloaded": ProviderFault(529, "the mock is overloaded", type="overloaded_error"),
    # The connection breaks before the answer begins.
    "network": None,
}
"""Kind of error -> what the mock then answers."""


@dataclass(frozen=True, slots=True)
class MockScript:
    """How one answer of the mock goes. Rates are 0 - 1; `tokens_per_second` 0 means at once.

    Attributes:
        ttft_ms: mean time to the first token; a single call varies by up to 30 % of it.
        tokens_per_second: rate of the following tokens.
        chunk_size: tokens a chunk.
        error_rate, error_kinds: how often a call fails, and with which of ERROR_KINDS (comma-separated; one is drawn).
        truncation_rate: how often the stream ends in the middle, without a finish reason.
        text: the answer, instead of one made up; of several, between lines of three hyphens, one is drawn.
        reasoning: what is thought before it.
        input_tokens, output_tokens, cached_tokens, reasoning_tokens: usage to report, instead of what was counted.
        report_usage: False leaves usage out of the answer.
        service_tier: what the answer says about its tier ("flex", "priority" ...), in its usage.
    """

    ttft_ms: float = 0.0
    tokens_per_second: float = 0.0
    chunk_size: int = 8
    error_rate: float = 0.0
    error_kinds: str = "server_error"
    truncation_rate: float = 0.0
    text: str = ""
    reasoning: str = ""
    input_tokens: int = -1
    output_tokens: int = -1
    cached_tokens: int = 0
    reasoning_tokens: int = -1
    report_usage: bool = True
    service_tier: str = ""


@dataclass(frozen=True, slots=True)
class MockModel:
    """A model that the mock has."""

    voice: Voice
    script: MockScript


MOCK_MODELS: Mapping[str, MockModel] = {
    "small": MockModel(Voice(3, 0.45, structured=False), MockScript(ttft_ms=15, tokens_per_second=2_000)),
    "medium": MockModel(Voice(5, 0.75, structured=False), MockScript(ttft_ms=30, tokens_per_second=1_200)),
    "large": MockModel(Voice(7, 0.97, structured=True), MockScript(ttft_ms=60, tokens_per_second=800)),
    # No delay and few chunks: for tests and for measuring what llmlab itself costs.
    "instant": MockModel(Voice(3, 0.75, structured=False), MockScript(chunk_size=64)),
}
"""Name -> model."""

_UPPER_LIMITS: Mapping[str, float] = {
    "ttft_ms": 600_000,
    "tokens_per_second": 1_000_000,
    "chunk_size": 100_000,
    "error_rate": 1,
    "truncation_rate": 1,
    "input_tokens": 100_000_000,
    "output_tokens": 100_000_000,
    "cached_tokens": 100_000_000,
    "reasoning_tokens": 100_000_000,
}
_DEFAULTS = MockScript()
_NAMES = frozenset(field.name for field in fields(MockScript))


def with_options(script: MockScript, options: Mapping[str, OptionValue]) -> MockScript:
    """The script with a call's provider options over it.

    Raises CallFailed(INVALID_FIELD), not dispatched, naming the option that is unknown, of a wrong type or too large.
    """
    changes: dict[str, object] = {}
    for name, value in options.items():
        if name not in _NAMES:
            raise _bad(name, f"unknown option of the mock; known are {', '.join(sorted(_NAMES))}")
        changes[name] = _checked(name, value)
    changed = replace(script, **changes)  # type: ignore[arg-type]
    if changed.chunk_size < 1:
        raise _bad("chunk_size", "expected at least 1")
    for kind in changed.error_kinds.split(","):
        if kind.strip() not in ERROR_KINDS:
            raise _bad("error_kinds", f"{kind!r} is not one of {', '.join(ERROR_KINDS)}")
    return changed


def _checked(name: str, value: OptionValue) -> OptionValue:
    expected = type(getattr(_DEFAULTS, name))
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if expected is str and isinstance(value, list):
        value = ",".join(str(item) for item in value)
    if type(value) is not expected:
        raise _bad(name, f"expected {expected.__name__}, got {type(value).__name__}")
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value <= _UPPER_LIMITS[name]:
        raise _bad(name, f"expected 0 - {_UPPER_LIMITS[name]:g}, got {value:g}")
    return value


def _bad(name: str, message: str) -> Exception:
    return refused("INVALID_FIELD", message, field=f"call.parameters.provider_options[{name!r}]")
