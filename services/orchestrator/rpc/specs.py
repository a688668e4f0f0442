"""Experiments' specs on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llmlab.api.metrics.v1 import brands_pb2, metrics_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2 as pb
from services.orchestrator.experiment import (
    BrandTarget,
    ExperimentSpec,
    MessageTemplate,
    ModelTarget,
    ParameterAxis,
    PromptTemplate,
    ScorerTarget,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.rpc.codec import ROLES, fill_values, value_message, value_of, values_of
from services.orchestrator.values import Values

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_ROLE_OF = {number: role for role, number in ROLES.items()}


def spec_of(message: pb.ExperimentSpec) -> ExperimentSpec:
    """A spec as plain values; repeats not given are one. What it names by id is not in it."""
    return ExperimentSpec(
        prompts=tuple(PromptTemplate(prompt.name, messages_of(prompt.messages)) for prompt in message.prompts),
        rows=rows_of(message.dataset.rows),
        models=tuple(
            ModelTarget(model.model, values_of(model.parameters), values_of(model.provider_options))
            for model in message.models
        ),
        grid=tuple(ParameterAxis(axis.name, tuple(value_of(each) for each in axis.values)) for axis in message.grid),
        repeats=message.repeats or 1,
        scorers=scorers_of(message.scorers),
        limits=limits_of(message.limits),
        brands=brands_of(message.brands),
    )


def messages_of(messages: Iterable[pb.MessageTemplate]) -> tuple[MessageTemplate, ...]:
    """The messages of a prompt as plain values."""
    return tuple(MessageTemplate(_ROLE_OF[each.role], each.text) for each in messages)


def message_templates(messages: Iterable[MessageTemplate]) -> list[pb.MessageTemplate]:
    """The messages of a prompt on the wire."""
    return [pb.MessageTemplate(role=ROLES[each.role], text=each.text) for each in messages]


def rows_of(messages: Iterable[pb.Row]) -> tuple[Values, ...]:
    """Rows as plain values."""
    return tuple(values_of(row.columns) for row in messages)


def fill_rows(messages: RepeatedCompositeFieldContainer[pb.Row], rows: Iterable[Values]) -> None:
    """Add rows to those on the wire."""
    for row in rows:
        fill_values(messages.add().columns, row)


def scorers_of(messages: Iterable[pb.ScorerTarget]) -> tuple[ScorerTarget, ...]:
    """Scorers as plain values."""
    return tuple(
        ScorerTarget(target.scorer.name, values_of(target.scorer.parameters), target.scorer.label, target.reference)
        for target in messages
    )


def brands_of(messages: Iterable[brands_pb2.Brand]) -> tuple[BrandTarget, ...]:
    """Brands as plain values."""
    return tuple(
        BrandTarget(each.name, tuple(each.aliases), tuple(each.excluded_contexts), tuple(each.domains))
        for each in messages
    )


def limits_of(message: pb.RunLimits) -> RunLimits:
    """Limits as stated."""
    return RunLimits(
        concurrency=message.concurrency,
        attempts_max=message.attempts_max,
        timeout_ms=message.timeout_ms,
        requests_per_minute=message.requests_per_minute,
        retry_unknown=message.retry_unknown,
        max_cost_nano_usd=message.max_cost_nano_usd,
        ignore_circuit_breaker=message.ignore_circuit_breaker,
        priority=message.priority,
        fixed_concurrency=message.fixed_concurrency,
    )


def limits_message(limits: RunLimits) -> pb.RunLimits:
    """Limits on the wire."""
    return pb.RunLimits(
        concurrency=limits.concurrency,
        attempts_max=limits.attempts_max,
        timeout_ms=limits.timeout_ms,
        requests_per_minute=limits.requests_per_minute,
        retry_unknown=limits.retry_unknown,
        max_cost_nano_usd=limits.max_cost_nano_usd,
        ignore_circuit_breaker=limits.ignore_circuit_breaker,
        priority=limits.priority,
        fixed_concurrency=limits.fixed_concurrency,
    )


def spec_message(spec: ExperimentSpec) -> pb.ExperimentSpec:
    """A spec on the wire."""
    message = pb.ExperimentSpec(repeats=spec.repeats, limits=limits_message(spec.limits))
    for prompt in spec.prompts:
        message.prompts.add(
            name=prompt.name,
            messages=message_templates(prompt.messages),
        )
    fill_rows(message.dataset.rows, spec.rows)
    for model in spec.models:
        added = message.models.add(model=model.model)
        fill_values(added.parameters, model.parameters)
        fill_values(added.provider_options, model.provider_options)
    for axis in spec.grid:
        message.grid.add(name=axis.name, values=[value_message(value) for value in axis.values])
    message.scorers.extend(map(scorer_target_message, spec.scorers))
    message.brands.extend(brand_messages(spec.brands))
    return message


def scorer_target_message(target: ScorerTarget) -> pb.ScorerTarget:
    """A scorer with its reference on the wire."""
    return pb.ScorerTarget(scorer=scorer_message(target), reference=target.reference)


def scorer_message(target: ScorerTarget) -> metrics_pb2.ScorerSpec:
    """A scorer and its parameters on the wire."""
    message = metrics_pb2.ScorerSpec(name=target.scorer, label=target.label)
    fill_values(message.parameters, target.parameters)
    return message


def brand_messages(brands: Sequence[BrandTarget]) -> list[brands_pb2.Brand]:
    """Brands on the wire."""
    return [
        brands_pb2.Brand(
            name=brand.name,
            aliases=brand.aliases,
            excluded_contexts=brand.excluded_contexts,
            domains=brand.domains,
        )
        for brand in brands
    ]
