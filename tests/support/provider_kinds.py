"""Providers of every wire format, against a server of the test's own."""

from __future__ import annotations

from services.gateway.providers.openai_request import OpenAiDialect
from services.gateway.providers.port import Provider
from services.gateway.providers.transport import HttpTransport, TransportLimits

KINDS = ("anthropic", "gemini", "openai", "responses")
KEY = "secret-key"


def provider_of(
    kind: str, base_url: str, *, limits: TransportLimits | None = None, dialect: OpenAiDialect | None = None
) -> Provider:
    """A provider that speaks a format; `base_url` is what the format's catalogue entry would have."""
    # Loaded here: the packages of the providers take seconds, and every test process collects all tests.
    from services.gateway.providers.anthropic import Anthropic
    from services.gateway.providers.gemini import Gemini
    from services.gateway.providers.openai_compatible import OpenAiCompatible

    transport = HttpTransport(limits)
    if kind == "anthropic":
        return Anthropic(transport, api_key=KEY, base_url=base_url)
    if kind == "gemini":
        return Gemini(transport, api_key=KEY, base_url=base_url)
    if kind == "responses":
        dialect = OpenAiDialect(api="responses")
    return OpenAiCompatible(transport, api_key=KEY, base_url=base_url, dialect=dialect or OpenAiDialect())
