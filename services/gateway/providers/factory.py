"""From catalogue entries to providers that take calls."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway.catalogue import ConfiguredProvider
from services.gateway.providers.gemini import Gemini
from services.gateway.providers.mock import MockProvider
from services.gateway.providers.port import Provider
from services.gateway.providers.tinyfish import TinyFish
from services.gateway.providers.tinyfish_mock import TinyFishMock
from services.gateway.providers.transport import HttpTransport, TransportLimits


def build_provider(
    configured: ConfiguredProvider,
    limits: TransportLimits,
    mock_overrides: Mapping[str, float],
    mock_calls_at_once: int = 0,
) -> Provider:
    """The provider of a configured entry. Takes seconds the first time, because the SDKs do: call it in a thread."""
    entry = configured.entry
    if entry.kind == "mock":
        return MockProvider(mock_overrides, calls_at_once=mock_calls_at_once)
    transport = HttpTransport(limits)
    if entry.kind == "anthropic":
        from services.gateway.providers.anthropic import Anthropic

        return Anthropic(transport, api_key=configured.api_key, base_url=configured.base_url or None)
    if entry.kind == "tinyfish":
        if configured.mock_mode:
            return TinyFishMock()
        return TinyFish(
            transport,
            api_key=configured.api_key,
            base_url=configured.base_url or None,
            run_path=configured.run_path,
            poll_s=entry.poll_s,
        )
    if entry.kind == "gemini":
        return Gemini(transport, api_key=configured.api_key, base_url=configured.base_url or None)
    from services.gateway.providers.openai_compatible import OpenAiCompatible
    from services.gateway.providers.openai_request import OpenAiDialect

    return OpenAiCompatible(
        transport,
        api_key=configured.api_key,
        base_url=configured.base_url or None,
        dialect=OpenAiDialect(
            entry.max_tokens_field, entry.stream_options, entry.api, entry.seed_field, entry.names_finish
        ),
    )
