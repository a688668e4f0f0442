"""The service tier of a call: what it asks for decides what is held, what its answer reports is what is billed.

A caller asks with the provider's own options: `service_tier` (OpenAI and its like, Anthropic), `serviceTier` (Gemini)
or Anthropic's `speed`. One that leaves the choice to the provider ("auto") is held at the standard price; the
settlement corrects it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.gateway.calls import Call

TIER_LENGTH_MAX = 32
"""Longest name that the cost service takes."""
_LEFT_OPEN = frozenset({"auto", "standard_only"})
_OTHER_CHARACTERS = re.compile(r"[^a-z0-9_]")


def asked_tier(call: Call) -> str:
    """The tier that a call asks for; empty where it asks for none or leaves the choice to the provider."""
    return reported_tier(call.parameters.provider_options)


def reported_tier(said: Mapping[str, object]) -> str:
    """The tier that the options of a request, or the usage or body of an answer, name; empty where they name none."""
    if said.get("speed") == "fast":
        return "fast"
    name = said.get("service_tier") or said.get("serviceTier")
    if not isinstance(name, str):
        return ""
    written = _OTHER_CHARACTERS.sub("_", name.lower())[:TIER_LENGTH_MAX]
    return "" if written in _LEFT_OPEN else written
