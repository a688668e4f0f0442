"""The product of an experiment: prompts x rows x models x parameter points x repeats.

One point of the product is a cell. A cell is addressed by its index, a mixed-radix number whose digits are, from the
slowest to the fastest, prompt, row, model, point and repeat. Nothing is expanded up front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from services.orchestrator.experiment import ExperimentSpec, ParameterAxis
from services.orchestrator.values import Value


class CellAddress(NamedTuple):
    """The digits of a cell's index, each from 0."""

    prompt: int
    row: int
    model: int
    point: int
    repeat: int


@dataclass(frozen=True, slots=True)
class Product:
    """The radices: how many prompts, rows, models, parameter points and repeats there are, each at least 0."""

    prompts: int
    rows: int
    models: int
    points: int
    repeats: int

    @classmethod
    def of(cls, spec: ExperimentSpec) -> Product:
        """The product of a spec. A dataset without rows counts as one row without columns."""
        points = 1
        for axis in spec.grid:
            points *= len(axis.values)
        return cls(len(spec.prompts), max(1, len(spec.rows)), len(spec.models), points, spec.repeats)

    @property
    def cells(self) -> int:
        """The exact number of cells."""
        return self.prompts * self.rows * self.models * self.points * self.repeats

    def address(self, index: int) -> CellAddress:
        """The digits of a cell's index; IndexError outside 0 ... cells - 1."""
        rest, repeat = divmod(index, self.repeats)
        rest, point = divmod(rest, self.points)
        rest, model = divmod(rest, self.models)
        prompt, row = divmod(rest, self.rows)
        if not 0 <= prompt < self.prompts:
            raise IndexError(f"cell {index} is outside the product of {self.cells} cells")
        return CellAddress(prompt, row, model, point, repeat)

    def index(self, address: CellAddress) -> int:
        """The index of an address; the inverse of `address`."""
        prompt, row, model, point, repeat = address
        return (((prompt * self.rows + row) * self.models + model) * self.points + point) * self.repeats + repeat


def point_values(grid: tuple[ParameterAxis, ...], point: int) -> dict[str, Value]:
    """The grid's values at one point, by name. The last axis changes fastest."""
    values: dict[str, Value] = {}
    for axis in reversed(grid):
        point, digit = divmod(point, len(axis.values))
        values[axis.name] = axis.values[digit]
    return {axis.name: values[axis.name] for axis in grid}
