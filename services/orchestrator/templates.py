r"""Prompt templates: `{{variable}}` is replaced by a row's column, `\{{` writes two braces.

A variable's name is whatever stands between the braces without its outer spaces: 1 - 64 characters, no braces, no line
break. A template is compiled once and rendered many times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.orchestrator.values import Value

VARIABLE_LENGTH_MAX = 64

_PIECE = re.compile(r"\\\{\{|\{\{(?P<name>[^{}\n]*)\}\}|(?P<open>\{\{)")


class TemplateSyntaxError(ValueError):
    """A template that cannot be compiled; the message says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template: literal texts and variable names in turn, beginning and ending with a literal."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def variables(self) -> frozenset[str]:
        """The distinct variables that a row has to have."""
        return frozenset(self.names)

    def render(self, columns: Mapping[str, Value]) -> str:
        """The text for one row. Raises KeyError for a variable that the row lacks (validation finds them up front)."""
        if not self.names:
            return self.literals[0]
        pieces = [self.literals[0]]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            pieces.append(as_text(columns[name]))
            pieces.append(literal)
        return "".join(pieces)


def compile_template(text: str) -> Template:
    """Compile a template; raises TemplateSyntaxError for an unclosed `{{` or a name that cannot be one."""
    literals: list[str] = []
    names: list[str] = []
    literal: list[str] = []
    end = 0
    for match in _PIECE.finditer(text):
        literal.append(text[end : match.start()])
        end = match.end()
        if match["open"] is not None:
            raise TemplateSyntaxError(
                f"'{{{{' at character {match.start()} is not closed by '}}}}'; write '\\{{{{' for two braces"
            )
        if match["name"] is None:
            literal.append("{{")
            continue
        names.append(_checked_name(match["name"].strip(), match.start()))
        literals.append("".join(literal))
        literal = []
    literal.append(text[end:])
    literals.append("".join(literal))
    return Template(tuple(literals), tuple(names))


def _checked_name(name: str, position: int) -> str:
    if not name:
        raise TemplateSyntaxError(f"'{{{{}}}}' at character {position} names no variable")
    if len(name) > VARIABLE_LENGTH_MAX:
        raise TemplateSyntaxError(
            f"the variable at character {position} has {len(name)} characters; at most {VARIABLE_LENGTH_MAX} will do"
        )
    return name


def as_text(value: Value) -> str:
    """A value as a template writes it: text as it is, null as nothing, everything else as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False)
