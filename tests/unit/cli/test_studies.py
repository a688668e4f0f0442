"""The study file: what it becomes, and what is said about a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from llmlab.api.common.v1 import content_pb2
from llmlab.cli import study_files
from llmlab.cli.studies import from_value, load_brand_set, load_study, study_schema, to_value
from llmlab.cli.study_files import StudyError, read_rows

EXAMPLES = Path(__file__).parents[3] / "examples"
MINIMAL = "name: s\nprompts: [Say hello]\nmodels: [mock/small]\n"


def write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(study_schema())


def test_a_minimal_study_gets_names_and_one_user_message(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, MINIMAL))
    assert (study.name, study.description) == ("s", "")
    [prompt] = study.spec.prompts
    assert prompt.name == "prompt-1"
    assert [(message.role, message.text) for message in prompt.messages] == [(content_pb2.ROLE_USER, "Say hello")]
    assert study.spec.repeats == 1
    assert not study.spec.HasField("dataset")


def test_every_part_of_a_full_study_reaches_the_spec(tmp_path: Path) -> None:
    study = load_study(
        write(
            tmp_path,
            """
name: full
description: all of it
prompts:
  - {name: a, system: Be short., user: "About {{x}}"}
  - name: b
    messages: [{role: user, text: Hi}, {role: assistant, text: Hello}, {role: user, text: "{{x}}?"}]
dataset: {rows: [{x: 1}, {x: 2.5}, {x: true}, {x: word}]}
models:
  - mock/small
  - {model: mock/large, parameters: {temperature: 0.1}, options: {ttft_ms: 5}}
grid: {temperature: [0, 1.5], stop: [[END]]}
repeats: 3
scorers: [quality, {name: contains, label: hit, reference: "{{x}}", parameters: {ignore_case: true}}]
limits: {concurrency: 7, attempts: 2, timeout_s: 1.5, requests_per_minute: 90, retry_unknown: true}
""",
        )
    )
    spec = study.spec
    assert [len(prompt.messages) for prompt in spec.prompts] == [2, 3]
    assert [from_value(row.columns["x"]) for row in spec.dataset.rows] == [1, 2.5, True, "word"]
    assert spec.models[1].parameters["temperature"].double_value == 0.1
    assert spec.models[1].provider_options["ttft_ms"].int_value == 5
    assert {axis.name: [from_value(value) for value in axis.values] for axis in spec.grid} == {
        "temperature": [0, 1.5],
        "stop": [["END"]],
    }
    assert spec.scorers[1].scorer.label == "hit"
    assert spec.scorers[1].reference == "{{x}}"
    limits = spec.limits
    assert (limits.concurrency, limits.attempts_max, limits.timeout_ms) == (7, 2, 1500)
    assert (limits.requests_per_minute, limits.retry_unknown) == (90, True)


@pytest.mark.parametrize("choice", ["two", "2"])
def test_a_study_is_picked_by_name_or_number(tmp_path: Path, choice: str) -> None:
    entry = "  - {name: %s, prompts: [x], models: [mock/small]}\n"
    path = write(tmp_path, "studies:\n" + entry % "one" + entry % "two")
    assert load_study(path, choice).name == "two"


@pytest.mark.parametrize(
    ("file", "study"),
    [("sweep.yaml", "1"), ("providers.yaml", "openai-and-anthropic"), ("providers.yaml", "openai-only")],
)
def test_every_example_loads(file: str, study: str) -> None:
    assert load_study(EXAMPLES / file, study).spec.models


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: s\nprompts: [", "line 2: not valid YAML"),
        ("- just a list", "a study file is a mapping"),
        ("name: s\nprompts: [x]\n", "'models' is a required property"),
        (MINIMAL + "grid: {temperature: []}\n", "`grid.temperature`"),
        (MINIMAL + "grid: {temprature: [1]}\n", "temprature"),
        (MINIMAL + "repeats: 0\n", "`repeats`"),
        (MINIMAL.replace("mock/small", "x" * 257), "`models[0]`"),
        (MINIMAL + "dataset: {rows: []}\n", "`dataset"),
        (MINIMAL + "dataset: {file: data.txt}\n", "`dataset"),
        (MINIMAL + "dataset: {file: missing.csv}\n", "missing.csv: can't be read"),
        (MINIMAL + "limits: {concurrency: 5000}\n", "`limits.concurrency`"),
        (MINIMAL + "unknown: 1\n", "'unknown' is not known here; there are brand_set, brands, dataset"),
        ("name: s\nprompt: [x]\nmodels: [mock/small]\n", "'prompt' is not known here; 'prompts' is"),
        (MINIMAL + "limits: {concurency: 1}\n", "`limits`: 'concurency' is not known here; 'concurrency' is"),
        ("studies: []\n", "`studies`"),
        (MINIMAL + "repeats: 1\nname: t\n", "line 5: not valid YAML ('name' stands twice)"),
        (MINIMAL + "grid: " + "[" * 2000 + "]" * 2000, "nested too deeply"),
        (
            MINIMAL + "dataset: {rows: [{x: null}]}\n",
            "`dataset.rows[0].x`: must be a text or a number or",
        ),
        (MINIMAL.replace("[mock/small]", "mock/small"), "`models`: must be a list, not 'mock/small'"),
        (MINIMAL + f"dataset: {{rows: [{{x: {2**63}}}]}}\n", "a value that can't be sent"),
        (MINIMAL.replace("Say hello", '"\\ud800"'), "a value that can't be sent"),
        (MINIMAL + "description: [" + "long, " * 1000 + "]\n", "…"),
    ],
)
def test_a_broken_study_names_the_place(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert complaint in str(caught.value)
    assert "study.yaml" in str(caught.value) or "missing.csv" in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"nowhere\.yaml: can't be read"):
        load_study(tmp_path / "nowhere.yaml")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match=r"binary\.yaml: is not a text in UTF-8"):
        load_study(path)


def test_a_date_is_the_text_that_was_written(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, MINIMAL + "dataset: {rows: [{day: 2024-02-30}]}\n"))
    assert study.spec.dataset.rows[0].columns["day"].string_value == "2024-02-30"


def test_files_above_a_limit_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_files, "STUDY_FILE_BYTES_MAX", len(MINIMAL) - 1)
    with pytest.raises(StudyError, match="put rows into a dataset file"):
        load_study(write(tmp_path, MINIMAL))
    rows = write(tmp_path, "a\n1\n2\n", "rows.csv")
    monkeypatch.setattr(study_files, "DATASET_ROWS_MAX", 1)
    with pytest.raises(StudyError, match="has 2 rows; at most 1 are allowed"):
        read_rows(rows)
    monkeypatch.setattr(study_files, "DATASET_FILE_BYTES_MAX", 1)
    with pytest.raises(StudyError, match="larger than"):
        read_rows(rows)


def test_a_brand_set_has_a_name_and_brands_and_a_study_can_name_it(tmp_path: Path) -> None:
    name, brands = load_brand_set(EXAMPLES / "brand-set.yaml")
    assert (name, brands[0].name, list(brands[1].aliases)) == ("payments", "Stripe", ["Pay Pal"])
    assert load_study(write(tmp_path, MINIMAL + "brand_set: payments\n")).spec.brand_set_id == "payments"
    for text, complaint in (
        ("- a list", "a file of a brand set is a mapping"),
        ("name: x", "'brands' is a required property"),
        ("{name: x, brands: []}", "`brands`"),
        ("{name: x, brands: [y], prompts: [z]}", "prompts"),
        ('{name: x, brands: ["\\ud800"]}', "a value that can't be sent"),
    ):
        with pytest.raises(StudyError) as caught:
            load_brand_set(write(tmp_path, text))
        assert complaint in str(caught.value)


def test_several_studies_want_a_choice(tmp_path: Path) -> None:
    entry = "  - {name: %s, prompts: [x], models: [mock/small]}\n"
    path = write(tmp_path, "studies:\n" + entry % "one" + entry % "two")
    with pytest.raises(StudyError, match=r"pick one with --study \(1: one, 2: two\)"):
        load_study(path)
    with pytest.raises(StudyError, match="has no study 'three'"):
        load_study(path, "three")


def test_rows_from_csv_and_json_lines(tmp_path: Path) -> None:
    csv_path = write(tmp_path, '\ufeffa,b\r\n1,"x, y\nz"\r\n', "rows.csv")
    assert read_rows(csv_path) == [{"a": "1", "b": "x, y\nz"}]
    json_path = write(tmp_path, '{"a": 1, "b": "\u2028"}\n\n{"a": 2.5}\n', "rows.jsonl")
    assert read_rows(json_path) == [{"a": 1, "b": "\u2028"}, {"a": 2.5}]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("r.csv", "a,b\n1\n", "line 2: has another number of columns"),
        ("r.csv", "a,b\n1,2,3\n", "line 2: has another number of columns"),
        ("r.csv", "a\n", "has no rows"),
        ("R.CSV", "", "has no rows"),
        ("r.csv", "a,b,a\n1,2,3\n", "line 1: has several columns of the name 'a'"),
        ("r.csv", 'a\n"x\n', "not valid CSV"),
        ("r.jsonl", '{"a": 1}\n{', "line 2: not valid JSON"),
        ("r.jsonl", "[1]\n", "line 1: a row is an object"),
        ("r.jsonl", '{"a": null}\n', "line 1: a row is an object"),
    ],
)
def test_a_broken_dataset_names_the_line(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    with pytest.raises(StudyError, match=complaint):
        read_rows(write(tmp_path, text, name))


SCALARS = (
    st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)


@given(SCALARS | st.lists(SCALARS, max_size=5))
def test_values_come_back_as_they_went(value: object) -> None:
    returned = from_value(to_value(value))
    assert returned == value
    assert type(returned) is type(value)


def test_the_schema_is_readable_by_other_tools() -> None:
    assert json.loads(json.dumps(study_schema()))["title"] == "llmlab study file"
