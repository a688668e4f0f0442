"""The study file: YAML that a person writes, checked against `study.schema.json`, turned into an experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.api.common.v1 import content_pb2, value_pb2
from llmlab.api.metrics.v1 import brands_pb2, metrics_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2
from llmlab.cli.money import NANO_PER_USD
from llmlab.cli.study_files import StudyError, read_rows, read_yaml

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

SCHEMA_MESSAGE_CHARACTERS = 300

_ROLES = {
    "system": content_pb2.ROLE_SYSTEM,
    "user": content_pb2.ROLE_USER,
    "assistant": content_pb2.ROLE_ASSISTANT,
}


# Kinds of JSON schema in the words of a person.
_KINDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


@dataclass(frozen=True, slots=True)
class Study:
    """One study of a file, ready to become an experiment; the ids of what the project keeps may still be names."""

    name: str
    description: str
    spec: experiment_pb2.ExperimentSpec


@cache
def study_schema() -> dict[str, Any]:
    """Returns the published JSON schema of study files."""
    text = files("llmlab.cli").joinpath("study.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def load_study(path: Path, choice: str = "") -> Study:
    """Reads a study file and returns one study of it.

    Args:
        path: The YAML file.
        choice: A study's name or number (from 1); empty takes the only one.

    Raises:
        StudyError: The file is missing, malformed, breaks the schema, or `choice` picks nothing.
    """
    document = read_yaml(path, "a study file is a mapping with `name`, `prompts` and `models`, or with `studies`")
    # Checking against the branch that the author meant gives an error about the field, not about the `oneOf`.
    _check_schema(path, document, study_schema()["oneOf"][1 if "studies" in document else 0])
    entries = document.get("studies", [document])
    entry = _choose(path, entries, choice)
    try:
        spec = _spec(path, entry)
    except (ValueError, OverflowError) as error:  # half of a character, a number of more than 64 bits
        raise StudyError(f"{path}: holds a value that can't be sent ({error})") from error
    return Study(entry["name"], entry.get("description", ""), spec)


def load_brand_set(path: Path) -> tuple[str, list[brands_pb2.Brand]]:
    """Reads a file with the name and the brands of a brand set, the brands as in a study.

    Raises:
        StudyError: The file is missing, malformed or breaks the schema (`brand_set_file` in study.schema.json).
    """
    document = read_yaml(path, "a file of a brand set is a mapping with `name` and `brands`")
    _check_schema(path, document, study_schema()["$defs"]["brand_set_file"])
    try:
        return document["name"], [_brand(brand) for brand in document["brands"]]
    except ValueError as error:  # half of a character
        raise StudyError(f"{path}: holds a value that can't be sent ({error})") from error


def load_prompt(path: Path) -> experiment_pb2.PromptTemplate:
    """Reads a file with a prompt as in a study, its name included.

    Raises:
        StudyError: The file is missing, malformed or breaks the schema (`prompt_file` in study.schema.json).
    """
    document = read_yaml(path, "a file of a prompt is a mapping with `name`, and `user` or `messages`")
    _check_schema(path, document, study_schema()["$defs"]["prompt_file"])
    _check_schema(path, document, study_schema()["$defs"]["prompt"])
    try:
        return _prompt(document, 1)
    except ValueError as error:  # half of a character
        raise StudyError(f"{path}: holds a value that can't be sent ({error})") from error


def load_rows(path: Path) -> list[experiment_pb2.Row]:
    """Reads the rows of a dataset.

    Raises:
        StudyError: The file is missing, malformed, empty or above a limit.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise StudyError(f"{path}: rows are in a .csv file with a header line, or in a .jsonl file")
    try:
        return _rows(read_rows(path))
    except (ValueError, OverflowError) as error:  # half of a character, a number of more than 64 bits
        raise StudyError(f"{path}: holds a value that can't be sent ({error})") from error


def _check_schema(path: Path, document: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    # Slow to load, and only some commands read a study.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    validator = Draft202012Validator({**schema, "$defs": study_schema()["$defs"]})
    errors = list(validator.iter_errors(document))
    # A name that is spelt wrong is missing too; what was written says more.
    error = best_match([each for each in errors if each.validator == "additionalProperties"] or errors)
    if error is not None:
        raise StudyError(f"{path}: {_schema_message(error)}")


def _schema_message(error: ValidationError) -> str:
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).lstrip(".")
    message = error.message
    if error.validator == "type":
        kinds: Any = error.validator_value
        wanted = [kinds] if isinstance(kinds, str) else kinds
        given = "nothing" if error.instance is None else repr(error.instance)
        message = f"must be {' or '.join(_KINDS[kind] for kind in wanted if kind != 'integer' or len(wanted) == 1)}, "
        message += f"not {given}"
    if error.validator == "additionalProperties":
        schema: Any = error.schema
        message = _unknown_name(error.instance, sorted(schema["properties"]))
    message = message if len(message) <= SCHEMA_MESSAGE_CHARACTERS else f"{message[:SCHEMA_MESSAGE_CHARACTERS]}…"
    return f"`{place}`: {message}" if place else message


def _unknown_name(given: Any, known: list[str]) -> str:
    unknown = next(name for name in given if name not in known)
    meant = get_close_matches(str(unknown), known, 1)
    return f"{unknown!r} is not known here; " + (f"{meant[0]!r} is" if meant else f"there are {', '.join(known)}")


def _choose(path: Path, entries: Sequence[dict[str, Any]], choice: str) -> dict[str, Any]:
    names = ", ".join(f"{number}: {entry['name']}" for number, entry in enumerate(entries, 1))
    if not choice:
        if len(entries) == 1:
            return entries[0]
        raise StudyError(f"{path}: holds {len(entries)} studies; pick one with --study ({names})")
    for number, entry in enumerate(entries, 1):
        if choice in (entry["name"], str(number)):
            return entry
    raise StudyError(f"{path}: has no study {choice!r} ({names})")


def _spec(path: Path, entry: Mapping[str, Any]) -> experiment_pb2.ExperimentSpec:
    limits = entry.get("limits", {})
    return experiment_pb2.ExperimentSpec(
        prompts=[_prompt(prompt, number) for number, prompt in enumerate(entry["prompts"], 1) if not _is_saved(prompt)],
        prompt_ids=[prompt["saved"] for prompt in entry["prompts"] if _is_saved(prompt)],
        dataset=_dataset(path, entry.get("dataset")),
        dataset_id=entry.get("dataset", {}).get("saved", ""),
        models=[_model(model) for model in entry["models"]],
        grid=[
            experiment_pb2.ParameterAxis(name=name, values=[to_value(value) for value in values])
            for name, values in entry.get("grid", {}).items()
        ],
        repeats=entry.get("repeats", 1),
        scorers=[_scorer(scorer) for scorer in entry.get("scorers", [])],
        brands=[_brand(brand) for brand in entry.get("brands", [])],
        brand_set_id=entry.get("brand_set", ""),
        limits=experiment_pb2.RunLimits(
            concurrency=limits.get("concurrency", 0),
            attempts_max=limits.get("attempts", 0),
            timeout_ms=round(limits.get("timeout_s", 0) * 1000),
            requests_per_minute=limits.get("requests_per_minute", 0),
            retry_unknown=limits.get("retry_unknown", False),
            max_cost_nano_usd=round(limits.get("max_cost_usd", 0) * NANO_PER_USD),
            ignore_circuit_breaker=limits.get("ignore_circuit_breaker", False),
            priority=limits.get("priority", 0),
            fixed_concurrency=limits.get("fixed_concurrency", False),
        ),
    )


def _is_saved(prompt: str | Mapping[str, Any]) -> bool:
    return not isinstance(prompt, str) and "saved" in prompt


def _prompt(prompt: str | Mapping[str, Any], number: int) -> experiment_pb2.PromptTemplate:
    if isinstance(prompt, str):
        prompt = {"user": prompt}
    messages = prompt.get("messages") or [
        {"role": role, "text": prompt[role]} for role in ("system", "user") if role in prompt
    ]
    return experiment_pb2.PromptTemplate(
        name=prompt.get("name", f"prompt-{number}"),
        messages=[
            experiment_pb2.MessageTemplate(role=_ROLES[message["role"]], text=message["text"]) for message in messages
        ],
    )


def _model(model: str | Mapping[str, Any]) -> experiment_pb2.ModelTarget:
    if isinstance(model, str):
        return experiment_pb2.ModelTarget(model=model)
    return experiment_pb2.ModelTarget(
        model=model["model"],
        parameters={name: to_value(value) for name, value in model.get("parameters", {}).items()},
        provider_options={name: to_value(value) for name, value in model.get("options", {}).items()},
    )


def _scorer(scorer: str | Mapping[str, Any]) -> experiment_pb2.ScorerTarget:
    if isinstance(scorer, str):
        scorer = {"name": scorer}
    return experiment_pb2.ScorerTarget(
        scorer=metrics_pb2.ScorerSpec(
            name=scorer["name"],
            label=scorer.get("label", ""),
            parameters={name: to_value(value) for name, value in scorer.get("parameters", {}).items()},
        ),
        reference=scorer.get("reference", ""),
    )


def _brand(brand: str | Mapping[str, Any]) -> brands_pb2.Brand:
    return brands_pb2.Brand(name=brand) if isinstance(brand, str) else brands_pb2.Brand(**brand)


def _dataset(path: Path, dataset: Mapping[str, Any] | None) -> experiment_pb2.Dataset | None:
    if dataset is None or "saved" in dataset:
        return None
    rows = dataset["rows"] if "rows" in dataset else read_rows(path.parent / dataset["file"])
    return experiment_pb2.Dataset(rows=_rows(rows))


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[experiment_pb2.Row]:
    return [experiment_pb2.Row(columns={str(name): to_value(value) for name, value in row.items()}) for row in rows]


def to_value(value: object) -> value_pb2.Value:
    """Turns a YAML scalar or list into a `Value`; whole numbers stay whole."""
    if isinstance(value, bool):
        return value_pb2.Value(bool_value=value)
    if isinstance(value, int):
        return value_pb2.Value(int_value=value)
    if isinstance(value, float):
        return value_pb2.Value(double_value=value)
    if isinstance(value, list):
        return value_pb2.Value(list_value=value_pb2.ValueList(values=[to_value(item) for item in value]))
    return value_pb2.Value(string_value=str(value))


def from_value(value: value_pb2.Value) -> str | int | float | bool | list[Any] | None:
    """Turns a `Value` back into a plain Python value; an empty one is None."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "list_value":
        return [from_value(item) for item in value.list_value.values]
    plain: str | int | float | bool = getattr(value, kind)
    return plain
