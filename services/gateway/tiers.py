"""The service tier of a call: what it asks for decides what is held, what its answer reports is what is billed.

A caller asks with the provider's own options: `service_tier` (OpenAI and its like, Anthropic), `serviceTier` (Gemini)
or Anthropic's `speed`. One that leaves the choice to the provider ("auto") is held at the dearest price that it can
come to; the settlement corrects it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.gateway.calls import Call

TIER_LENGTH_MAX = 32
"""Longest name that the cost service takes."""
LEFT_OPEN = "auto"
"""What the cost service is told where the provider may choose the tier; no answer is in it."""
_NO_TIER = frozenset({LEFT_OPEN, "standard_only"})
_OTHER_CHARACTERS = re.compile(r"[^a-z0-9_]")


def asked_tier(call: Call) -> str:
    """The tier that a call asks for; empty where it asks for none."""
    options = call.parameters.provider_options
    return reported_tier(options) or (LEFT_OPEN if _named(options) == LEFT_OPEN else "")


def reported_tier(said: Mapping[str, object]) -> str:
    """The tier that the options of a request, or the usage or body of an answer, name; empty where they name none."""
    if said.get("speed") == "fast":
        return "fast"
    name = _named(said)
    return "" if name in _NO_TIER else name


def _named(said: Mapping[str, object]) -> str:
    name = said.get("service_tier") or said.get("serviceTier")
    return _OTHER_CHARACTERS.sub("_", name.lower())[:TIER_LENGTH_MAX] if isinstance(name, str) else ""
