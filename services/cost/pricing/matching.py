"""Which model a name means: the rules of a catalogue, as plain data.

A rule is a mapping of one key, for example `{"starts_with": "gpt-4o"}` or `{"or": [rule, rule]}`. They are those of
`genai-prices`, so that a compiled catalogue needs nothing else to be read. Names are compared in lower case.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final, TypeAlias

Rule: TypeAlias = Mapping[str, Any]
Matcher: TypeAlias = Callable[[str], bool]

_COMPACT_DATE: Final = re.compile(r"(-)(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


def matcher_of(rule: Rule) -> Matcher:
    """A function that says whether a name in lower case is meant. KeyError for an unknown rule."""
    ((kind, operand),) = rule.items()
    return _MATCHERS[kind](operand)


def with_dashed_date(name: str) -> str:
    """The name with a date such as -20250514 written -2025-05-14, as resellers' names have to be read."""

    def dashed(match: re.Match[str]) -> str:
        year, month, day = (int(match.group(index)) for index in range(2, 5))
        try:
            return f"-{date(year, month, day).isoformat()}"
        except ValueError:
            return match.group(0)

    return _COMPACT_DATE.sub(dashed, name)


def _starts_with(text: str) -> Matcher:
    wanted = text.lower()
    return lambda name: name.startswith(wanted)


def _ends_with(text: str) -> Matcher:
    wanted = text.lower()
    return lambda name: name.endswith(wanted)


def _contains(text: str) -> Matcher:
    wanted = text.lower()
    return lambda name: wanted in name


def _equals(text: str) -> Matcher:
    wanted = text.lower()
    return lambda name: name == wanted


def _regex(text: str) -> Matcher:
    # As written: a pattern with capital letters matches nothing, in the source as here.
    pattern = re.compile(text)
    return lambda name: pattern.search(name) is not None


def _any_of(rules: list[Rule]) -> Matcher:
    matchers = [matcher_of(rule) for rule in rules]
    return lambda name: any(matches(name) for matches in matchers)


def _all_of(rules: list[Rule]) -> Matcher:
    matchers = [matcher_of(rule) for rule in rules]
    return lambda name: all(matches(name) for matches in matchers)


_MATCHERS: Final[Mapping[str, Callable[[Any], Matcher]]] = {
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "contains": _contains,
    "equals": _equals,
    "regex": _regex,
    "or": _any_of,
    "and": _all_of,
}
