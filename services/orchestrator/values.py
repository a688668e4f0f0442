"""Small typed values, as they stand in dataset rows, parameters and provider options."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | tuple["Value", ...] | None
"""A scalar or a list. Integers stay integers: 7 is never 7.0."""

Values: TypeAlias = Mapping[str, Value]

NO_VALUES: Values = MappingProxyType({})
