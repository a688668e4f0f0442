"""What the requests of several formats have in common; imports no provider's SDK, which take long to load."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from services.gateway.calls import Call, ImagePart
from services.gateway.failures import refused


def with_options(body: dict[str, Any], call: Call, reserved: frozenset[str]) -> dict[str, Any]:
    """The body with the caller's provider options as top-level fields."""
    for name, value in call.parameters.provider_options.items():
        if name in reserved:
            raise refused(
                "INVALID_FIELD",
                f"provider option {name!r} is set by the gateway; use the call's own fields instead",
                field=f"call.parameters.provider_options[{name!r}]",
            )
        body[name] = value
    return body


def json_schema(text: str, field: str) -> dict[str, object]:
    """A JSON schema from its text; `field` is named where it is not a JSON object."""
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise refused("INVALID_FIELD", f"not a JSON schema: {error}", field=field) from error
    if not isinstance(schema, dict):
        raise refused("INVALID_FIELD", "not a JSON schema: expected an object", field=field)
    return schema


def data_url(image: ImagePart) -> str:
    """The picture as a URL: its own, or a data URL of its bytes."""
    if image.url:
        return image.url
    return f"data:{image.media_type or 'image/png'};base64,{base64.b64encode(image.data).decode()}"
