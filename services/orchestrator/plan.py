"""A run as its worker needs it: decoded once, then every cell's call and scoring sample in microseconds."""

from __future__ import annotations

from collections.abc import Sequence

from services.orchestrator.calls import CallId, CallPlan, PlannedCall
from services.orchestrator.experiment import ScorerTarget
from services.orchestrator.ports import RunCredential, Sample, ScorerGroup
from services.orchestrator.product import CellAddress
from services.orchestrator.records import RunRecord
from services.orchestrator.spec_view import SpecView
from services.orchestrator.templates import compile_template


class RunPlan:
    """Everything about a run that does not change while it runs, and for whom it acts."""

    def __init__(self, run: RunRecord, encoded_spec: bytes) -> None:
        self._view = SpecView(encoded_spec)
        spec = self._view.spec
        self.run_id = run.run_id
        self.project_id = run.project_id
        self.limits = run.limits
        self.traceparent = run.traceparent
        self.cells = run.statistics.cells_total
        self.credential = RunCredential(run.project_id, run.delegation_id)
        self.scorer_groups = scorer_groups(spec.scorers)
        self.brands = spec.brands
        self.pays_for_scores = any(group.needs_model for group in self.scorer_groups)
        self._tags = {"experiment": run.experiment_id}
        self._rates = [run.limits.rate_for(model.provider) for model in spec.models]
        self._references = [
            compile_template(group.scorers[0].reference) if group.has_reference else None
            for group in self.scorer_groups
        ]
        self._call_plans: dict[tuple[int, int], CallPlan] = {}

    def act_under(self, delegation_id: str) -> None:
        """From now on calls are made, and paid for, under this delegation."""
        self.credential = RunCredential(self.project_id, delegation_id)

    def model_index(self, cell: int) -> int:
        """The index of a cell's model in the spec."""
        return self._view.model_index(cell)

    def requests_per_minute(self, cell: int) -> int:
        """The rate that a cell's call has to keep; 0 for none."""
        return self._rates[self._view.model_index(cell)]

    def call(self, call_id: CallId, nonce: str) -> PlannedCall:
        """The call of a cell, rendered."""
        address = self._view.address(call_id.cell)
        messages = self._view.messages(address.prompt, address.row)
        return PlannedCall(str(call_id), nonce, self._call_plan(address), messages)

    def sample(self, cell: int, answer: str, finish_reason: str, traceparent: str = "") -> Sample:
        """A cell's answer as the metrics service gets it. The prompt is what the user said, else everything."""
        address = self._view.address(cell)
        messages = self._view.messages(address.prompt, address.row)
        said = [text for role, text in messages if role == "user"] or [text for _, text in messages]
        columns = self._view.columns(address.row)
        references = tuple("" if template is None else template.render(columns) for template in self._references)
        return Sample(cell, "\n\n".join(said), answer, references, finish_reason, traceparent)

    def _call_plan(self, address: CellAddress) -> CallPlan:
        plan = self._call_plans.get((address.model, address.point))
        if plan is None:
            model = self._view.spec.models[address.model]
            plan = CallPlan(
                run_id=self.run_id,
                model=model.model,
                parameters=self._view.parameters(address.model, address.point),
                provider_options=model.provider_options,
                timeout_ms=self.limits.timeout_ms,
                ignore_circuit_breaker=self.limits.ignore_circuit_breaker,
                tags=self._tags,
            )
            self._call_plans[address.model, address.point] = plan
        return plan


def scorer_groups(targets: tuple[ScorerTarget, ...]) -> tuple[ScorerGroup, ...]:
    """Scorers grouped by their reference, so that one request scores as much as it can.

    A sample has one reference for all scorers of a request. Scorers without one join the first group: they ignore it.
    No scorers at all are one group, for which the metrics service takes its default set. Those that call models have
    groups of their own, the last ones.
    """
    paid = [target for target in targets if target.needs_model]
    free = [target for target in targets if not target.needs_model]
    groups = _by_reference(free) if free or not paid else ()
    return groups + tuple(group._replace(needs_model=True) for group in (_by_reference(paid) if paid else ()))


def _by_reference(targets: Sequence[ScorerTarget]) -> tuple[ScorerGroup, ...]:
    by_reference: dict[str, list[ScorerTarget]] = {}
    for target in targets:
        by_reference.setdefault(target.reference, []).append(target)
    plain = by_reference.pop("", [])
    if not by_reference:
        return (ScorerGroup(tuple(plain), has_reference=False),)
    first, *others = by_reference.values()
    return tuple(ScorerGroup(tuple(group), has_reference=True) for group in ([*first, *plain], *others))
