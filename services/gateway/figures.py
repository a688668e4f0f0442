"""What the provider's calls come to, as figures of this process."""

from __future__ import annotations

from services.gateway.attempts import Attempt
from services.runtime import telemetry


class AttemptFigures:
    """`attempts{outcome}`, `tokens{kind}`, `spend_nano_usd`, `ttft_ms`: of attempts that reached a provider."""

    def __init__(self) -> None:
        self._worked = telemetry.counter("attempts", outcome="worked")
        self._failed = telemetry.counter("attempts", outcome="failed")
        self._input = telemetry.counter("tokens", kind="input")
        self._output = telemetry.counter("tokens", kind="output")
        self._spend = telemetry.counter("spend_nano_usd")
        self._ttft = telemetry.histogram("ttft_ms")

    def ended(self, attempt: Attempt) -> None:
        """The provider has answered, or failed to."""
        (self._worked if attempt.failure is None else self._failed).add()
        ttft_us = attempt.stopwatch.ttft_any_us
        if ttft_us is not None:
            self._ttft.record(ttft_us / 1_000)
        usage = attempt.usage
        if usage is not None:
            self._input.add(usage.input_tokens)
            self._output.add(usage.output_tokens)

    def settled(self, attempt: Attempt) -> None:
        """The cost service has said what it costs."""
        if attempt.cost is not None:
            self._spend.add(attempt.cost.cost_nano_usd)
