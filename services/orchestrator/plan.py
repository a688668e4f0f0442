"""A run as its worker needs it: decoded once, then every cell's call and scoring sample in microseconds."""

from __future__ import annotations

from dataclasses import dataclass

from services.orchestrator.calls import CallId, CallPlan, PlannedCall, RenderedMessages
from services.orchestrator.experiment import ExperimentSpec, Role, ScorerTarget
from services.orchestrator.ports import RunCredential, Sample, ScorerGroup
from services.orchestrator.product import CellAddress, Product, point_values
from services.orchestrator.records import RunRecord
from services.orchestrator.spec_codec import decode_spec
from services.orchestrator.templates import Template, compile_template
from services.orchestrator.values import NO_VALUES, Value

_RENDERED_MAX = 512
"""Prompts kept rendered: the cells of a shard share them over models, points and repeats."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    roles: tuple[Role, ...]
    templates: tuple[Template, ...]


class RunPlan:
    """Everything about a run that does not change while it runs."""

    def __init__(self, run: RunRecord, encoded_spec: bytes) -> None:
        spec = decode_spec(encoded_spec)
        self.run_id = run.run_id
        self.project_id = run.project_id
        self.limits = run.limits
        self.cells = run.statistics.cells_total
        self.credential = RunCredential(run.project_id, run.delegation_id)
        self.scorer_groups = scorer_groups(spec.scorers)
        self._spec = spec
        self._tags = {"experiment": run.experiment_id}
        self._product = Product.of(spec)
        self._prompts = [
            _Prompt(
                tuple(message.role for message in prompt.messages),
                tuple(compile_template(message.text) for message in prompt.messages),
            )
            for prompt in spec.prompts
        ]
        self._references = [
            compile_template(group.scorers[0].reference) for group in _with_reference(self.scorer_groups)
        ]
        self._call_plans: dict[tuple[int, int], CallPlan] = {}
        self._rendered: dict[tuple[int, int], RenderedMessages] = {}

    def model_index(self, cell: int) -> int:
        """The index of a cell's model in the spec."""
        return self._product.address(cell).model

    def requests_per_minute(self, cell: int) -> int:
        """The rate that a cell's call has to keep; 0 for none."""
        return self.limits.rate_for(self._spec.models[self.model_index(cell)].provider)

    def call(self, call_id: CallId, nonce: str) -> PlannedCall:
        """The call of a cell, rendered."""
        address = self._product.address(call_id.cell)
        return PlannedCall(str(call_id), nonce, self._call_plan(address), self.messages(address.prompt, address.row))

    def messages(self, prompt: int, row: int) -> RenderedMessages:
        """A prompt filled in with a row."""
        rendered = self._rendered.get((prompt, row))
        if rendered is None:
            columns = self._spec.rows[row] if self._spec.rows else NO_VALUES
            each = self._prompts[prompt]
            rendered = tuple(
                (role, template.render(columns)) for role, template in zip(each.roles, each.templates, strict=True)
            )
            if len(self._rendered) >= _RENDERED_MAX:
                self._rendered.clear()
            self._rendered[prompt, row] = rendered
        return rendered

    def sample(self, cell: int, answer: str, finish_reason: str) -> Sample:
        """A cell's answer as the metrics service gets it. The prompt is what the user said, else everything."""
        address = self._product.address(cell)
        messages = self.messages(address.prompt, address.row)
        said = [text for role, text in messages if role == "user"] or [text for _, text in messages]
        columns = self._spec.rows[address.row] if self._spec.rows else NO_VALUES
        rendered = iter([template.render(columns) for template in self._references])
        references = tuple(next(rendered) if group.has_reference else "" for group in self.scorer_groups)
        return Sample(cell, "\n\n".join(said), answer, references, finish_reason)

    def _call_plan(self, address: CellAddress) -> CallPlan:
        plan = self._call_plans.get((address.model, address.point))
        if plan is None:
            model = self._spec.models[address.model]
            plan = CallPlan(
                run_id=self.run_id,
                model=model.model,
                parameters=point_parameters(self._spec, address.model, address.point),
                provider_options=model.provider_options,
                timeout_ms=self.limits.timeout_ms,
                tags=self._tags,
            )
            self._call_plans[address.model, address.point] = plan
        return plan


def point_parameters(spec: ExperimentSpec, model: int, point: int) -> dict[str, Value]:
    """A model's own parameters with the grid's values in their place."""
    return {**spec.models[model].parameters, **point_values(spec.grid, point)}


def scorer_groups(targets: tuple[ScorerTarget, ...]) -> tuple[ScorerGroup, ...]:
    """Scorers grouped by their reference, so that one request scores as much as it can.

    A sample has one reference for all scorers of a request. Scorers without one join the first group: they ignore it.
    No scorers at all are one group, for which the metrics service takes its default set.
    """
    positions: dict[str, list[int]] = {}
    for position, target in enumerate(targets):
        positions.setdefault(target.reference, []).append(position)
    plain = positions.pop("", [])
    groups = [(True, group) for group in positions.values()]
    if not groups:
        groups = [(False, plain)]
    else:
        groups[0] = (True, groups[0][1] + plain)
    return tuple(
        ScorerGroup(tuple(targets[position] for position in group), tuple(group), has_reference)
        for has_reference, group in groups
    )


def _with_reference(groups: tuple[ScorerGroup, ...]) -> list[ScorerGroup]:
    return [group for group in groups if group.has_reference]
