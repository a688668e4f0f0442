"""The one stored form of a spec: canonical JSON. Its SHA-256 is the spec's hash, so equal specs have equal hashes.

Canonical: keys sorted, no spaces, UTF-8, integers and floats kept apart (7 and 7.0 differ, as they do to a provider).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

from services.orchestrator.brand_sets import brand_of
from services.orchestrator.experiment import (
    ExperimentSpec,
    MessageTemplate,
    ModelTarget,
    ParameterAxis,
    PromptTemplate,
    Role,
    ScorerTarget,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.resources import canonical
from services.orchestrator.values import Value

_YOUNGER_LIMITS = ("max_cost_nano_usd", "ignore_circuit_breaker", "priority", "fixed_concurrency")


def _limits(limits: RunLimits) -> dict[str, Any]:
    """Limits as stated; those that are younger than specs on record are left out where they are not."""
    return {name: value for name, value in asdict(limits).items() if value or name not in _YOUNGER_LIMITS}


def encode_spec(spec: ExperimentSpec) -> bytes:
    """The canonical bytes of a spec."""
    document: dict[str, Any] = {
        "prompts": [
            {"name": prompt.name, "messages": [[message.role, message.text] for message in prompt.messages]}
            for prompt in spec.prompts
        ],
        "rows": [dict(row) for row in spec.rows],
        "models": [
            {
                "model": model.model,
                "parameters": dict(model.parameters),
                "provider_options": dict(model.provider_options),
            }
            for model in spec.models
        ],
        "grid": [{"name": axis.name, "values": axis.values} for axis in spec.grid],
        "repeats": spec.repeats,
        "scorers": [
            {
                "scorer": target.scorer,
                "parameters": dict(target.parameters),
                "label": target.label,
                "reference": target.reference,
                # Left out otherwise, as in specs that are older than scorers with models.
                **({"needs_model": True} if target.needs_model else {}),
            }
            for target in spec.scorers
        ],
        "limits": _limits(spec.limits),
    }
    if spec.brands:  # left out otherwise, as in specs that are older than brands
        document["brands"] = [asdict(brand) for brand in spec.brands]
    return canonical(document)


def decode_spec(data: bytes) -> ExperimentSpec:
    """The spec of canonical bytes; the inverse of `encode_spec`."""
    document = json.loads(data)
    return ExperimentSpec(
        prompts=tuple(
            PromptTemplate(
                prompt["name"], tuple(MessageTemplate(cast("Role", role), text) for role, text in prompt["messages"])
            )
            for prompt in document["prompts"]
        ),
        rows=tuple(values_of(row) for row in document["rows"]),
        models=tuple(
            ModelTarget(model["model"], values_of(model["parameters"]), values_of(model["provider_options"]))
            for model in document["models"]
        ),
        grid=tuple(ParameterAxis(axis["name"], _tuple(axis["values"])) for axis in document["grid"]),
        repeats=document["repeats"],
        scorers=tuple(
            ScorerTarget(
                target["scorer"],
                values_of(target["parameters"]),
                target["label"],
                target["reference"],
                target.get("needs_model", False),
            )
            for target in document["scorers"]
        ),
        limits=RunLimits(**document["limits"]),
        brands=tuple(brand_of(brand) for brand in document.get("brands", ())),
    )


def spec_hash(encoded: bytes) -> str:
    """SHA-256 of a spec's canonical bytes, hexadecimal."""
    return hashlib.sha256(encoded).hexdigest()


def values_of(document: Mapping[str, Any]) -> dict[str, Value]:
    """Named values from their JSON form."""
    return {name: _value(value) for name, value in document.items()}


def _value(value: Any) -> Value:
    return _tuple(value) if isinstance(value, list) else value


def _tuple(values: list[Any]) -> tuple[Value, ...]:
    return tuple(_value(value) for value in values)
