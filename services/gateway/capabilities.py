"""What a call needs of its model, checked before anything is held or sent."""

from __future__ import annotations

from dataclasses import replace

from services.gateway.calls import Call, ImagePart
from services.gateway.catalogue import Route
from services.gateway.catalogue_file import Capability
from services.gateway.failures import refused

_WORDS: dict[Capability, tuple[str, str]] = {
    "images": ("pictures", "call.messages"),
    "tools": ("tools", "call.tools"),
    "json_schema": ("answers by a JSON schema", "call.response_json_schema"),
}


def needs_of(call: Call) -> frozenset[Capability]:
    """What the model has to be able to do."""
    needs: set[Capability] = set()
    if call.tools:
        needs.add("tools")
    if call.response_json_schema:
        needs.add("json_schema")
    if any(isinstance(part, ImagePart) for message in call.messages for part in message.parts):
        needs.add("images")
    return frozenset(needs)


def check_capabilities(call: Call, route: Route) -> Route:
    """The route without deployments that are known to lack what the call needs.

    Raises CallFailed(INVALID_FIELD), not dispatched, where none is left.
    """
    if all(deployment.capabilities is None for deployment, _ in route.deployments):
        return route
    needs = needs_of(call)
    if not needs:
        return route
    able = tuple(
        choice for choice in route.deployments if choice[0].capabilities is None or needs <= choice[0].capabilities
    )
    if able:
        return route if len(able) == len(route.deployments) else replace(route, deployments=able)
    words, field = _WORDS[min(needs - (route.deployments[0][0].capabilities or frozenset()))]
    message = f"{route.name} takes no {words}; leave them out, or choose a model that `llmlab models` lists with them"
    raise refused("INVALID_FIELD", message, field=field)
