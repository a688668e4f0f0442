"""The files of a study: YAML with the study itself, CSV or JSON Lines with dataset rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

STUDY_FILE_BYTES_MAX = 16 * 1024 * 1024
DATASET_FILE_BYTES_MAX = 64 * 1024 * 1024
DATASET_ROWS_MAX = 100_000


class StudyError(Exception):
    """The study file can't be used; the message names the file, the place and what to do."""


class _Loader(yaml.SafeLoader):
    """YAML without two traps: a name that stands twice is an error, and a date is the text that was written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":  # "<<" merges, any number of times
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# What a plain scalar can mean, dates aside.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path, form: str) -> dict[str, Any]:
    """Reads a YAML file whose content is a mapping; `form` says of what, for files that hold something else.

    Raises:
        StudyError: The file is missing, not YAML, above the limit, or holds something else.
    """
    try:
        if path.stat().st_size > STUDY_FILE_BYTES_MAX:
            raise StudyError(f"{path}: larger than {STUDY_FILE_BYTES_MAX // 2**20} MiB; put rows into a dataset file")
    except OSError as error:
        raise StudyError(f"{path}: can't be read ({error.strerror})") from error
    text = _read_text(path)
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise StudyError(f"{path}{where}: not valid YAML ({error.problem or error.context})") from error
    except RecursionError as error:
        raise StudyError(f"{path}: lists or mappings are nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise StudyError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(document, dict):
        raise StudyError(f"{path}: {form}")
    return document


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StudyError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: is not a text in UTF-8; save it with that encoding") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads dataset rows from a CSV file (header line, all texts) or a JSON Lines file (one object a line).

    Raises:
        StudyError: The file is missing, malformed, empty or above a limit.
    """
    try:
        if path.stat().st_size > DATASET_FILE_BYTES_MAX:
            raise StudyError(f"{path}: larger than {DATASET_FILE_BYTES_MAX // 2**20} MiB")
    except OSError as error:
        raise StudyError(f"{path}: can't be read ({error.strerror})") from error
    text = _read_text(path)
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_lines(path, text)
    if not rows:
        raise StudyError(f"{path}: has no rows")
    if len(rows) > DATASET_ROWS_MAX:
        raise StudyError(f"{path}: has {len(rows):,} rows; at most {DATASET_ROWS_MAX:,} are allowed")
    return rows


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, Any]] = []
    try:
        names = list(reader.fieldnames or ())
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise StudyError(f"{path}, line 1: has several columns of the name {twice[0]!r}")
        for row in reader:
            if None in row or None in row.values():
                raise StudyError(f"{path}, line {reader.line_num}: has another number of columns than the header")
            rows.append(row)
    except csv.Error as error:
        raise StudyError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error
    return rows


def _json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise StudyError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(row, dict) or not all(isinstance(value, str | int | float | bool) for value in row.values()):
            raise StudyError(f"{path}, line {number}: a row is an object whose values are texts, numbers or booleans")
        rows.append(row)
    return rows
