"""Whether the answer is JSON of a given shape, by jsonschema.

The library evaluates whatever it is given; a schema of a few lines can keep it busy for hours (references that
multiply, patterns for Python's backtracking engine, an enumeration for each of very many elements). So patterns run in
RE2, keywords that can't be bounded are refused, and every evaluated keyword is counted against a limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from services.metrics.declarations import Absent, Parameters, Scorer, Subject, Value, binary
from services.metrics.json_text import JSON_CHARACTERS_MAX, JSON_DEPTH_MAX, JsonTooLarge, only_code_block, parse_json
from services.metrics.scorers.matching import compile_pattern

_SCHEMA_CHARACTERS_MAX = 20_000
# A step is a keyword met by a value, counted once for each node of both: a microsecond or two. References cost more.
_STEPS_MAX = 500_000
_STEPS_PER_REFERENCE = 30
_CHARACTERS_PER_NODE = 64

TOO_LARGE = Absent(
    f"the answer's JSON is longer than {JSON_CHARACTERS_MAX:,} characters or nested deeper than {JSON_DEPTH_MAX} levels"
)
TOO_MUCH_WORK = Absent("answer and schema are too large for each other; shorten one of them")
TOO_LARGE_A_NUMBER = Absent("the answer's JSON holds a number that is too large to be calculated with")
BROKEN_REFERENCE = Absent("a $ref of the schema leads nowhere, or in circles")

# They keep books of what other keywords have looked at, or choose their target while they run.
_REFUSED_KEYWORDS = frozenset(
    {"patternProperties", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"}
)
# Below these stand names that an author chose, and below each of them a schema.
_NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
# Below these stand plain values.
_VALUES = frozenset({"const", "enum", "default", "examples", "required"})


class _TooMuchWork(Exception):
    pass


class _Meter:
    """Counts what one evaluation costs."""

    def __init__(self) -> None:
        self._steps = 0
        self._nodes: dict[int, int] = {}

    def start(self, instance: object) -> None:
        """Starts anew, with the sizes of `instance` and of all that it holds."""
        self._steps = 0
        self._nodes.clear()
        self._measure(instance)

    def _measure(self, instance: object) -> int:
        if isinstance(instance, str):
            return 1 + len(instance) // _CHARACTERS_PER_NODE
        if not isinstance(instance, (dict, list)):
            return 1
        children = instance.values() if isinstance(instance, dict) else instance
        nodes = self._nodes[id(instance)] = 1 + sum(map(self._measure, children))
        return nodes

    def charge(self, keyword_value: object, instance: object, steps: int) -> None:
        """Counts a keyword of so many `steps` a node that is applied to `instance`. Raises _TooMuchWork."""
        nodes = self._nodes[id(instance)] if isinstance(instance, (dict, list)) else self._measure(instance)
        branches = len(keyword_value) if isinstance(keyword_value, (dict, list)) else 0
        self._steps += nodes * (1 + branches) * steps
        if self._steps > _STEPS_MAX:
            raise _TooMuchWork


Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


def _metered(meter: _Meter, keyword: Keyword, steps: int) -> Keyword:
    def metered(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        meter.charge(value, instance, steps)
        yield from keyword(validator, value, instance, schema) or ()

    return metered


def _pattern(_validator: Any, pattern: str, instance: object, _: object) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and compile_pattern(pattern).search(instance) is None:
        yield ValidationError("does not match the pattern")


def _canonical(value: object) -> object:
    """A value to compare and hash by JSON schema's equality: 1 is 1.0, but not true."""
    if isinstance(value, dict):
        return frozenset((name, _canonical(each)) for name, each in value.items())
    if isinstance(value, list):
        return tuple(map(_canonical, value))
    return (type(value), value) if isinstance(value, bool) else value


def _unique_items(_validator: Any, wanted: bool, instance: object, _: object) -> Iterator[Any]:  # noqa: FBT001 (its port)
    from jsonschema import ValidationError

    if wanted and isinstance(instance, list) and len(set(map(_canonical, instance))) < len(instance):
        yield ValidationError("holds an element twice")


@lru_cache(maxsize=64)
def _compiled(text: str) -> tuple[Any, _Meter]:
    """The validator of a schema, and the meter of its evaluations."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend, validator_for
    from referencing import Registry

    schema = json.loads(text)
    meter = _Meter()
    dialect = validator_for(schema, default=Draft202012Validator)
    keywords: Mapping[str, Keyword] = {**dialect.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique_items}
    metered = {
        name: _metered(meter, keyword, _STEPS_PER_REFERENCE if name == "$ref" else 1)
        for name, keyword in keywords.items()
    }
    # A registry of our own: the default one fetches what a reference names.
    metered_dialect = extend(dialect, validators=metered)  # type: ignore[no-untyped-call]
    return metered_dialect(schema, registry=Registry()), meter


def _check_keywords(schema: object) -> None:
    """Raises ValueError where `schema` holds what is refused."""
    if isinstance(schema, list):
        for each in schema:
            _check_keywords(each)
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        if keyword in _REFUSED_KEYWORDS:
            raise ValueError(f"{keyword} is not supported")
        if keyword == "$ref" and not (isinstance(value, str) and value.startswith("#")):
            raise ValueError("$ref may only lead to places within the schema, such as #/$defs/name")
        if keyword == "pattern" and isinstance(value, str):
            compile_pattern(value)
        if keyword in _NAMED_SCHEMAS and isinstance(value, dict):
            _check_keywords(list(value.values()))
        elif keyword not in _VALUES:
            _check_keywords(value)


def _checked_schema(text: str) -> str:
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    try:
        parsed = parse_json(text)
    except JsonTooLarge:
        raise ValueError(f"the schema is nested deeper than {JSON_DEPTH_MAX} levels") from None
    if parsed is None or not isinstance(parsed.value, dict):
        raise ValueError("the schema is no JSON object")
    _check_keywords(parsed.value)
    try:
        validator_for(parsed.value, default=Draft202012Validator).check_schema(parsed.value)
    except SchemaError as error:
        raise ValueError(f"{error.json_path}: {error.message}") from None
    return text


class JsonSchemaParameters(Parameters):
    """The shape."""

    schema_: Annotated[str, AfterValidator(_checked_schema)] = Field(
        alias="schema",
        min_length=2,
        max_length=_SCHEMA_CHARACTERS_MAX,
        description="The JSON schema, as text; draft 2020-12 unless its $schema names another. "
        "Patterns are in RE2 syntax.",
    )
    from_code_block: bool = Field(
        default=True, description="Whether, in an answer with one fenced code block, only the block is read."
    )


def _json_schema(subject: Subject, parameters: JsonSchemaParameters) -> Sequence[Value]:
    text = subject.answer.raw
    block = only_code_block(text) if parameters.from_code_block else None
    try:
        parsed = parse_json(text if block is None else block)
    except JsonTooLarge:
        return (TOO_LARGE, TOO_LARGE)
    if parsed is None:
        return (0.0, 0.0)
    return (_valid(parameters.schema_, parsed.value), 1.0)


def _valid(schema: str, instance: object) -> Value:
    from referencing.exceptions import Unresolvable

    validator, meter = _compiled(schema)
    meter.start(instance)
    try:
        return float(validator.is_valid(instance))
    except _TooMuchWork:
        return TOO_MUCH_WORK
    except (RecursionError, Unresolvable):
        return BROKEN_REFERENCE
    except OverflowError:
        return TOO_LARGE_A_NUMBER


JSON_SCHEMA = Scorer(
    name="json_schema",
    version="1",
    description="Whether the answer is JSON of a given shape.",
    citation="JSON Schema, https://json-schema.org, by the jsonschema package.",
    scores=(
        binary("1 where the answer is JSON that the schema accepts."),
        binary("1 where the answer is JSON at all.", "parses"),
    ),
    function=_json_schema,
    parameters=JsonSchemaParameters,
)
