"""What an experiment runs, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from services.orchestrator.limits import RunLimits
from services.orchestrator.values import Value, Values

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class MessageTemplate:
    """One message of a prompt; `text` is a template (templates.py)."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt; names are distinct in an experiment."""

    name: str
    messages: tuple[MessageTemplate, ...]


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """A model as "provider/model", with parameters and provider options of its own.

    A grid value of the same name wins.
    """

    model: str
    parameters: Values = field(default_factory=dict)
    provider_options: Values = field(default_factory=dict)

    @property
    def provider(self) -> str:
        """The part before the first slash."""
        return self.model.partition("/")[0]


@dataclass(frozen=True, slots=True)
class ParameterAxis:
    """One axis of the parameter grid."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class ScorerTarget:
    """A scorer, the label of its scores (empty: its own name) and the template of its reference (empty: none)."""

    scorer: str
    parameters: Values = field(default_factory=dict)
    label: str = ""
    reference: str = ""
    needs_model: bool = False
    """Whether it calls a model, at the run's expense; the metrics service says so when the spec is admitted."""

    @property
    def score_label(self) -> str:
        """The name that its scores carry."""
        return self.label or self.scorer


@dataclass(frozen=True, slots=True)
class BrandTarget:
    """A brand that is looked for."""

    name: str
    aliases: tuple[str, ...] = ()
    excluded_contexts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """Everything that decides which calls a run makes and how they are scored."""

    prompts: tuple[PromptTemplate, ...]
    models: tuple[ModelTarget, ...]
    rows: tuple[Values, ...] = ()
    grid: tuple[ParameterAxis, ...] = ()
    repeats: int = 1
    scorers: tuple[ScorerTarget, ...] = ()
    limits: RunLimits = field(default_factory=RunLimits)
    brands: tuple[BrandTarget, ...] = ()
