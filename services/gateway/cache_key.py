"""What makes two calls equal, as a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

from services.gateway.calls import Call, Owner
from services.gateway.catalogue import Route
from services.gateway.event_codec import to_json

_VERSION = 2
"""Counts up when a call comes to mean something else, so that no older answer is taken for one to it."""


def cache_key(project_id: str, route: Route, call: Call) -> str:
    """The hash of everything that an answer depends on: 64 hexadecimal digits.

    JSON tells types and strings apart without doubt, kinds of parts by their fields, and keeps the order of what is
    ordered; options are sorted, because they have none. The project is part of it: tenants share nothing.
    """
    parameters = call.parameters
    asked = (
        _VERSION,
        project_id,
        route.places,
        call.messages,
        parameters.temperature,
        parameters.top_p,
        parameters.max_output_tokens or max(choice.default_max_output_tokens for choice, _ in route.deployments),
        parameters.seed,
        parameters.stop,
        parameters.frequency_penalty,
        parameters.presence_penalty,
        parameters.reasoning_effort,
        sorted(parameters.provider_options.items()),
        call.tools,
        call.tool_choice,
        call.response_json_schema,
        call.include_raw,
    )
    return hashlib.sha256(to_json(asked)).hexdigest()


def flight_key(key: str, call: Call, owner: Owner) -> Hashable:
    """What two calls that may share one attempt have in common, besides what their `cache_key` stands for.

    They are charged alike, so that one bill is right for all; they are patient alike, so that one failure is.
    """
    return (
        key,
        owner,
        call.run_id,
        tuple(sorted(call.tags.items())),
        call.caching,
        call.ignore_circuit_breaker,
        call.retries_max,
        call.retry_ambiguous,
        call.fallbacks,
        call.hedge_after_ms,
    )
