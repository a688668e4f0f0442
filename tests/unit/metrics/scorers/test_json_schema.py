from __future__ import annotations

import json

import pytest

from services.metrics.declarations import Absent, Subject, Value
from services.metrics.registry import ScorerSpec, make_plan
from services.metrics.scorers.json_schema import JSON_SCHEMA
from services.runtime.errors import InvalidField

PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z]"},
        "tags": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
        "age": {"type": "integer", "minimum": 0},
        "boss": {"$ref": "#"},
    },
    "additionalProperties": False,
}


def scores(answer: str, schema: object, *, from_code_block: bool = True) -> list[Value]:
    parameters = {"schema": json.dumps(schema), "from_code_block": from_code_block}
    checked = JSON_SCHEMA.parameters.model_validate(parameters)
    return list(JSON_SCHEMA.function(Subject(answer), checked))


@pytest.mark.parametrize(
    ("answer", "valid", "parses"),
    [
        ('{"name": "Ada", "age": 36, "tags": ["a", "b"]}', 1.0, 1.0),
        ('{"name": "Ada", "boss": {"name": "Bob"}}', 1.0, 1.0),
        ('{"name": "Ada", "boss": {}}', 0.0, 1.0),
        ('{"name": "ada"}', 0.0, 1.0),
        ('{"name": "Ada", "tags": ["a", "a"]}', 0.0, 1.0),
        ('{"name": "Ada", "more": 1}', 0.0, 1.0),
        ('{"age": 3}', 0.0, 1.0),
        ("null", 0.0, 1.0),
        ('Sure:\n```json\n{"name": "Ada"}\n```\nDone.', 1.0, 1.0),
        ('```\n{"name": "Ada"}\n```\n```\n{}\n```', 0.0, 0.0),
        ('{"name": "Ada", "age": NaN}', 0.0, 0.0),
        ('{"name": "Ada"', 0.0, 0.0),
        ("", 0.0, 0.0),
        ("\x00", 0.0, 0.0),
    ],
)
def test_answers(answer: str, valid: float, parses: float) -> None:
    assert scores(answer, PERSON) == [valid, parses]


def test_the_whole_answer_has_to_be_json_where_told_so() -> None:
    assert scores('```\n{"name": "Ada"}\n```', PERSON, from_code_block=False) == [0.0, 0.0]


def test_equality_is_that_of_json_schema() -> None:
    unique = {"uniqueItems": True}
    assert scores("[1, 1.0]", unique)[0] == 0.0
    assert scores("[1, true, 0, false, [1], [true]]", unique)[0] == 1.0
    assert scores('[{"a": 1, "b": 2}, {"b": 2, "a": 1}]', unique)[0] == 0.0


@pytest.mark.parametrize(
    "answer", ["[" * 65 + "]" * 65, "[" * 100_000, '{"a":' * 80 + "1" + "}" * 80, "[" + "1," * 100_000 + "1]"]
)
def test_deep_and_long_json_is_not_read(answer: str) -> None:
    for value in scores(answer, {}):
        assert isinstance(value, Absent)
        assert "levels" in value.reason


def test_brackets_in_strings_nest_nothing() -> None:
    assert scores(json.dumps("[" * 500 + '"'), {"type": "string"}) == [1.0, 1.0]


DOUBLING = {"$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}, "$ref": "#/$defs/d0"}
DOUBLING["$defs"]["d40"] = {}  # type: ignore[index]


@pytest.mark.parametrize(
    ("schema", "answer", "reason"),
    [
        (DOUBLING, "1", "too large"),
        ({"items": {"enum": list(range(2_000))}}, json.dumps([1_999] * 10_000), "too large"),
        ({"allOf": [{"items": {}}] * 800}, json.dumps([0] * 20_000), "too large"),
        ({"$ref": "#"}, "1", "circles"),
        ({"$ref": "#/$defs/nowhere"}, "1", "nowhere"),
    ],
)
def test_work_is_bounded(schema: object, answer: str, reason: str) -> None:
    value, parses = scores(answer, schema)
    assert isinstance(value, Absent)
    assert reason in value.reason
    assert parses == 1.0


def test_many_objects_are_compared_in_linear_time() -> None:
    assert scores(json.dumps([{"a": n} for n in range(10_000)]), {"uniqueItems": True})[0] == 1.0


def test_patterns_run_in_linear_time() -> None:
    assert scores(json.dumps("x" * 50_000), {"pattern": "^(x+x+)+y$"})[0] == 0.0


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{]", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"type": "nope"}', "type"),
        ('{"pattern": "(?=x)"}', "RE2"),
        ('{"patternProperties": {"x": {}}}', "patternProperties is not supported"),
        ('{"items": [{"unevaluatedItems": false}]}', "unevaluatedItems is not supported"),
        ('{"$ref": "https://example.com/schema"}', "within the schema"),
        ('{"not":' * 70 + "{}" + "}" * 70, "levels"),
    ],
)
def test_wrong_schemas_are_refused(schema: str, message: str) -> None:
    with pytest.raises(InvalidField, match=message) as caught:
        make_plan([ScorerSpec("json_schema", {"schema": schema})])
    assert caught.value.field == "scorers[0].parameters.schema"


def test_names_and_values_are_no_keywords() -> None:
    schema = {"properties": {"patternProperties": {"const": {"$ref": "https://example.com"}}}}
    assert scores('{"patternProperties": {"$ref": "https://example.com"}}', schema)[0] == 1.0
    assert scores('{"patternProperties": 1}', schema)[0] == 0.0


def test_older_drafts_by_their_name() -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert scores('["a", 1]', schema)[0] == 1.0
    assert scores("[1]", schema)[0] == 0.0


def test_a_number_beyond_all_bounds_is_absent_with_a_reason() -> None:
    value, parses = scores("1e400", {"multipleOf": 0.1})
    assert isinstance(value, Absent)
    assert value.reason == "the answer's JSON holds a number that is too large to be calculated with"
    assert parses == 1.0
