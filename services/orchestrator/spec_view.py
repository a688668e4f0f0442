"""A spec, decoded and compiled once: what stands at each cell, in microseconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.orchestrator.calls import RenderedMessages
from services.orchestrator.experiment import ExperimentSpec, Role
from services.orchestrator.product import CellAddress, Product, point_values
from services.orchestrator.spec_codec import decode_spec
from services.orchestrator.templates import Template, compile_template
from services.orchestrator.values import NO_VALUES, Value, Values

_RENDERED_MAX = 512
"""Prompts kept rendered: neighbouring cells share them over models, points and repeats."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    roles: tuple[Role, ...]
    templates: tuple[Template, ...]


class SpecView:
    """Reads cells of one spec."""

    def __init__(self, encoded_spec: bytes) -> None:
        self.spec: ExperimentSpec = decode_spec(encoded_spec)
        self.product = Product.of(self.spec)
        self._prompts = [
            _Prompt(
                tuple(message.role for message in prompt.messages),
                tuple(compile_template(message.text) for message in prompt.messages),
            )
            for prompt in self.spec.prompts
        ]
        self._rendered: dict[tuple[int, int], RenderedMessages] = {}
        self._parameters: dict[tuple[int, int], dict[str, Value]] = {}

    def address(self, cell: int) -> CellAddress:
        """Where a cell is in the product."""
        return self.product.address(cell)

    def model_index(self, cell: int) -> int:
        """The index of a cell's model."""
        return self.product.address(cell).model

    def model_name(self, cell: int) -> str:
        """The name of a cell's model."""
        return self.spec.models[self.product.address(cell).model].model

    def model_indices(self, names: frozenset[str]) -> list[int]:
        """The indices of the models with these names."""
        return [index for index, model in enumerate(self.spec.models) if model.model in names]

    def cells_of_prompts(self, names: frozenset[str]) -> list[tuple[int, int]]:
        """The first and the last cell of each prompt with one of these names: a prompt's cells are neighbours."""
        each = self.product.cells // max(1, self.product.prompts)
        return [
            (index * each, (index + 1) * each - 1)
            for index, prompt in enumerate(self.spec.prompts)
            if prompt.name in names
        ]

    def columns(self, row: int) -> Values:
        """A row of the dataset; one without columns where there is no dataset."""
        return self.spec.rows[row] if self.spec.rows else NO_VALUES

    def parameters(self, model: int, point: int) -> dict[str, Value]:
        """A model's own parameters with the grid's values in their place."""
        merged = self._parameters.get((model, point))
        if merged is None:
            merged = {**self.spec.models[model].parameters, **point_values(self.spec.grid, point)}
            self._parameters[model, point] = merged
        return merged

    def parameter_values(self) -> dict[str, list[Value]]:
        """Every parameter of a model or of the grid, with the values that it takes."""
        found: dict[str, list[Value]] = {}
        for model in self.spec.models:
            for name, value in model.parameters.items():
                found.setdefault(name, []).append(value)
        for axis in self.spec.grid:
            found.setdefault(axis.name, []).extend(axis.values)
        return found

    def messages(self, prompt: int, row: int) -> RenderedMessages:
        """A prompt filled in with a row."""
        rendered = self._rendered.get((prompt, row))
        if rendered is None:
            columns = self.columns(row)
            each = self._prompts[prompt]
            rendered = tuple(
                (role, template.render(columns)) for role, template in zip(each.roles, each.templates, strict=True)
            )
            if len(self._rendered) >= _RENDERED_MAX:
                self._rendered.clear()
            self._rendered[prompt, row] = rendered
        return rendered


class SpecViews:
    """The views used last, by content: lists, watchers and exports of one run share one."""

    def __init__(self, load: Callable[[str, str], Awaitable[bytes]], max_kept: int) -> None:
        """`load(project_id, spec_hash)` gives an encoded spec."""
        self._load = load
        self._max_kept = max_kept
        self._views: OrderedDict[tuple[str, str], SpecView] = OrderedDict()

    async def get(self, project_id: str, spec_hash: str) -> SpecView:
        """The view of a spec."""
        key = (project_id, spec_hash)
        view = self._views.get(key)
        if view is None:
            view = SpecView(await self._load(project_id, spec_hash))
            self._views[key] = view
            if len(self._views) > self._max_kept:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return view
