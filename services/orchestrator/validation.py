"""What an experiment has to be before it is stored, and the errors that say how to put it right.

Every error names its field by its path in the request, for example `spec.grid[0].values`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from services.orchestrator.experiment import ExperimentSpec, ScorerTarget
from services.orchestrator.limits import TIMEOUT_MS_MIN, RunLimits
from services.orchestrator.parameters import check_parameter
from services.orchestrator.product import Product
from services.orchestrator.scores import ScorerDeclaration
from services.orchestrator.templates import Template, TemplateSyntaxError, compile_template
from services.orchestrator.values import NO_VALUES, Values
from services.runtime.errors import InvalidField

T = TypeVar("T")

VARIABLES_NAMED_MAX = 10
"""How many missing variables one error message lists."""


def check_spec(spec: ExperimentSpec, *, cells_max: int, cells_setting: str) -> int:
    """Check a spec on its own (models and scorers are looked up elsewhere) and return its number of cells.

    `cells_setting` is the environment variable that sets `cells_max`; the error names it. Raises InvalidField.
    """
    _check_not_empty(spec)
    _check_distinct(spec)
    _check_parameters(spec)
    check_limits(spec.limits, "spec.limits")
    cells = Product.of(spec).cells
    if cells > cells_max:
        raise InvalidField(
            "spec",
            f"{_factors(spec)} make {cells:,} cells, above the limit of {cells_max:,} cells a run; "
            f"make the experiment smaller or raise {cells_setting}",
            reason="TOO_MANY_CELLS",
            metadata={"cells": str(cells), "limit": str(cells_max), "setting": cells_setting},
        )
    _check_templates(spec)
    return cells


def check_limits(limits: RunLimits, path: str) -> None:
    """Check what the contract's own rules leave open."""
    if limits.timeout_ms and limits.timeout_ms < TIMEOUT_MS_MIN:
        raise InvalidField(f"{path}.timeout_ms", f"a call needs at least {TIMEOUT_MS_MIN} ms, not {limits.timeout_ms}")


def _check_not_empty(spec: ExperimentSpec) -> None:
    if not spec.prompts:
        raise _empty("spec.prompts", "an experiment needs at least one prompt")
    if not spec.models:
        raise _empty("spec.models", "an experiment needs at least one model")
    for index, axis in enumerate(spec.grid):
        if not axis.values:
            raise _empty(
                f"spec.grid[{index}].values",
                f"the axis {axis.name!r} has no values, so there are no cells; give values or leave the axis out",
            )


def _empty(field: str, message: str) -> InvalidField:
    return InvalidField(field, message, reason="EMPTY_PRODUCT")


def _check_distinct(spec: ExperimentSpec) -> None:
    _distinct("spec.prompts", "name", spec.prompts, lambda prompt: prompt.name)
    _distinct("spec.grid", "name", spec.grid, lambda axis: axis.name)
    _distinct("spec.scorers", "label", spec.scorers, lambda target: target.score_label)


def _distinct(path: str, attribute: str, items: Sequence[T], key: Callable[[T], str]) -> None:
    first_of: dict[str, int] = {}
    for index, item in enumerate(items):
        name = key(item)
        if name in first_of:
            raise InvalidField(
                f"{path}[{index}].{attribute}",
                f"{name!r} is used by {path}[{first_of[name]}] already; names are distinct",
            )
        first_of[name] = index


def _check_parameters(spec: ExperimentSpec) -> None:
    for index, model in enumerate(spec.models):
        provider, slash, name = model.model.partition("/")
        if not (slash and provider and name):
            raise InvalidField(
                f"spec.models[{index}].model",
                f"{model.model!r} is not a model; write provider/model, for example 'mock/small'",
            )
        for parameter, value in model.parameters.items():
            check_parameter(f"spec.models[{index}].parameters[{parameter!r}]", parameter, value)
    for index, axis in enumerate(spec.grid):
        for position, value in enumerate(axis.values):
            check_parameter(
                f"spec.grid[{index}].values[{position}]", axis.name, value, name_field=f"spec.grid[{index}].name"
            )


def _factors(spec: ExperimentSpec) -> str:
    product = Product.of(spec)
    return (
        f"{product.prompts} prompts x {product.rows} rows x {product.models} models x "
        f"{product.points} parameter points x {product.repeats} repeats"
    )


def _check_templates(spec: ExperimentSpec) -> None:
    rows = spec.rows or (NO_VALUES,)
    for index, prompt in enumerate(spec.prompts):
        for position, message in enumerate(prompt.messages):
            field = f"spec.prompts[{index}].messages[{position}].text"
            _check_rows(field, f"prompt {prompt.name!r}", _compiled(field, message.text), rows)
    for index, target in enumerate(spec.scorers):
        field = f"spec.scorers[{index}].reference"
        _check_rows(field, f"the reference of scorer {target.score_label!r}", _compiled(field, target.reference), rows)


def _compiled(field: str, text: str) -> Template:
    try:
        return compile_template(text)
    except TemplateSyntaxError as error:
        raise InvalidField(field, str(error)) from error


def _check_rows(field: str, what: str, template: Template, rows: Sequence[Values]) -> None:
    needed = template.variables
    if not needed:
        return
    missing: dict[str, list[int]] = {}
    for row_index, row in enumerate(rows):
        for name in needed.difference(row):
            missing.setdefault(name, []).append(row_index)
    if not missing:
        return
    names = sorted(missing)
    shown = "; ".join(
        f"{{{{{name}}}}} in row {missing[name][0]}"
        + (f" and {len(missing[name]) - 1} more" if missing[name][1:] else "")
        for name in names[:VARIABLES_NAMED_MAX]
    )
    more = f"; and {len(names) - VARIABLES_NAMED_MAX} more variables" if len(names) > VARIABLES_NAMED_MAX else ""
    raise InvalidField(
        field,
        f"{what} uses variables that rows do not have: {shown}{more}; add the columns, or write \\{{{{ for braces",
        reason="TEMPLATE_VARIABLE_MISSING",
        metadata={"variables": ",".join(names[:VARIABLES_NAMED_MAX]), "row": str(min(map(min, missing.values())))},
    )


def names_places(spec: ExperimentSpec) -> bool:
    """Whether a model is named without its provider."""
    return any("/" not in model.model for model in spec.models)


def with_places(spec: ExperimentSpec, places: Mapping[str, Sequence[str]]) -> ExperimentSpec:
    """The spec with "provider/model" in place of the gateway's aliases, so that it means the same tomorrow.

    `places` maps each alias and routed model to where it is called. Names that are not among them stay as they are.
    Raises InvalidField for a model that is called in several places.
    """
    models = []
    for index, model in enumerate(spec.models):
        called = places.get(model.model, (model.model,))
        if len(called) > 1:
            raise InvalidField(
                f"spec.models[{index}].model",
                f"the gateway spreads {model.model!r} over {_some(called)}; name one of them, or each as a model of "
                "its own, so that it is known what is measured",
            )
        models.append(replace(model, model=called[0]))
    return replace(spec, models=tuple(models))


def with_needs(spec: ExperimentSpec, declared: Sequence[ScorerDeclaration]) -> ExperimentSpec:
    """The spec with a note at each scorer that calls a model. Raises InvalidField as `check_scorers`."""
    check_scorers(spec.scorers, declared)
    needing = {scorer.name for scorer in declared if scorer.needs_model}
    return replace(
        spec, scorers=tuple(replace(target, needs_model=target.scorer in needing) for target in spec.scorers)
    )


def check_models(spec: ExperimentSpec, known: Collection[str], not_configured: dict[str, str]) -> None:
    """Check the models, those that judge included, against what the gateway can call.

    `known` holds the names that it knows; `not_configured` maps those without a key to the setting to fill in.
    "provider/*" stands for any name of that provider (an OpenAI-compatible server lists none).
    """
    providers = {name.partition("/")[0] for name in known}
    named = [(f"spec.models[{index}].model", model.model) for index, model in enumerate(spec.models)]
    named += [
        (f"spec.scorers[{index}].scorer.parameters['model']", str(target.parameters["model"]))
        for index, target in enumerate(spec.scorers)
        if target.needs_model and "model" in target.parameters
    ]
    for field, name in named:
        provider = name.partition("/")[0]
        if name not in known and f"{provider}/*" not in known:
            hint = (
                f"{provider} has {_some(n for n in known if n.startswith(provider + '/'))}"
                if provider in providers
                else f"the providers are {_some(providers)}"
            )
            raise InvalidField(field, f"the gateway does not know {name!r}; {hint}", reason="MODEL_NOT_FOUND")
        setting = not_configured.get(name, not_configured.get(f"{provider}/*", ""))
        if setting:
            raise InvalidField(
                field,
                f"the gateway has no key for {provider!r}; set {setting} and restart the gateway",
                reason="PROVIDER_NOT_CONFIGURED",
                metadata={"setting": setting},
            )


def check_scorers(targets: Sequence[ScorerTarget], declared: Sequence[ScorerDeclaration]) -> None:
    """Check the scorers against what the metrics service declares: names, references and parameter names."""
    by_name = {scorer.name: scorer for scorer in declared}
    for index, target in enumerate(targets):
        path = f"spec.scorers[{index}]"
        scorer = by_name.get(target.scorer)
        if scorer is None:
            raise InvalidField(
                f"{path}.scorer.name",
                f"no scorer is called {target.scorer!r}; there are {_some(by_name)}",
                reason="SCORER_NOT_FOUND",
            )
        if scorer.needs_reference and not target.reference:
            raise InvalidField(
                f"{path}.reference",
                f"the scorer {target.scorer!r} compares with a reference; give one, for example '{{{{answer}}}}'",
                reason="REFERENCE_MISSING",
            )
        _check_scorer_parameters(path, target, scorer)


def _check_scorer_parameters(path: str, target: ScorerTarget, scorer: ScorerDeclaration) -> None:
    for name in target.parameters:
        if name not in scorer.parameters:
            raise InvalidField(
                f"{path}.scorer.parameters[{name!r}]",
                f"the scorer {target.scorer!r} has no parameter {name!r}; it has {_some(scorer.parameters)}",
                reason="SCORER_PARAMETERS",
            )
    for name in scorer.required_parameters:
        if name not in target.parameters:
            raise InvalidField(
                f"{path}.scorer.parameters",
                f"the scorer {target.scorer!r} needs the parameter {name!r}",
                "SCORER_PARAMETERS",
            )


def _some(names: Iterable[str], shown: int = 8) -> str:
    ordered = sorted(names)
    if not ordered:
        return "none"
    rest = len(ordered) - shown
    return ", ".join(ordered[:shown]) + (f" and {rest} more" if rest > 0 else "")
