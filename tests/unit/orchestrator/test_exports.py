import csv
import io
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from services.orchestrator import parquet
from services.orchestrator.calls import Money, Timing, Usage
from services.orchestrator.exports import CsvWriter, ExportRow, ExportWriter, JsonLinesWriter, JsonWriter


def row(cell: int, response: str = "fine") -> ExportRow:
    return ExportRow(
        run_id="run_1",
        cell_index=cell,
        status="done",
        prompt_name="ask",
        row_index=0,
        model="mock/small",
        parameters={"temperature": 1.0, "stop": ("a", "b")},
        repeat_index=0,
        attempts=1,
        finish_reason="STOP",
        usage=Usage(input_tokens=7, output_tokens=3),
        cost=Money(42, 0),
        timing=Timing(latency_us=1_000, ttft_any_us=None, streamed=True),
        error_reason="",
        error_message="",
        created_us=1_700_000_000_000_001,
        scores={"length.words": 1.0, "relevance": None},
        request=(("user", 'Say "hi", please\nnow'),),
        response=response,
    )


def write(writer: ExportWriter, *pages: list[ExportRow]) -> str:
    return (writer.begin() + b"".join(writer.rows(page) for page in pages) + writer.end()).decode()


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_reads_back_cell_by_cell() -> None:
    text = write(CsvWriter(["temperature", "stop"], ["length.words", "relevance"]), [row(0, 'a,"b"\r\nc')], [row(1)])

    first, second = read_csv(text)

    assert first["response"] == 'a,"b"\r\nc'
    assert json.loads(first["request"]) == [{"role": "user", "text": 'Say "hi", please\nnow'}]
    assert (first["parameter.temperature"], first["parameter.stop"]) == ("1.0", '["a", "b"]')
    assert (first["score.length.words"], first["score.relevance"]) == ("1.0", "")
    assert (first["ttft_any_us"], first["streamed"], first["cost_nano_usd"]) == ("", "true", "42")
    assert first["create_time"] == "2023-11-14T22:13:20.000001Z"
    assert second["cell_index"] == "1"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_never_hands_a_formula_to_a_spreadsheet(start: str) -> None:
    guarded = read_csv(write(CsvWriter([], []), [row(0, f"{start}1+1")]))
    plain = read_csv(write(CsvWriter([], [], guard_formulas=False), [row(0, f"{start}1+1")]))

    assert guarded[0]["response"] == f"'{start}1+1"
    assert plain[0]["response"] == f"{start}1+1"


def test_an_empty_csv_has_its_header() -> None:
    assert write(CsvWriter([], ["s"])).startswith("run_id,cell_index,status,")
    assert write(CsvWriter([], ["s"])).endswith(",response,brands,judgements,score.s\r\n")


@pytest.mark.parametrize("pages", [[], [[row(0)]], [[row(0), row(1)], [], [row(2)]]])
def test_json_is_one_array_and_json_lines_one_object_a_line(pages: list[list[ExportRow]]) -> None:
    array = json.loads(write(JsonWriter(), *pages))
    lines = [json.loads(line) for line in write(JsonLinesWriter(), *pages).splitlines()]

    assert array == lines
    assert [item["cell_index"] for item in array] == list(range(len(array)))


def test_json_keeps_numbers_and_nulls_and_text_as_they_are() -> None:
    (item,) = json.loads(write(JsonWriter(), [row(0, "=é\u2028")]))

    assert item["response"] == "=é\u2028"
    assert item["scores"] == {"length.words": 1.0, "relevance": None}
    assert item["parameters"] == {"temperature": 1.0, "stop": ["a", "b"]}
    assert item["usage"]["input_tokens"] == 7
    assert item["timing"]["ttft_any_us"] is None
    assert item["request"][0]["text"] == 'Say "hi", please\nnow'


def test_parquet_reads_back_with_types_and_in_bounded_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2)
    writer = parquet.ParquetWriter(
        {"temperature": [0, 1.5], "stop": [("a", "b"), "c"], "n": [1], "on": [True]}, ["words"]
    )
    rows = [replace(row(cell, f"answer {cell}"), scores={"words": cell / 2}, brands={"Acme": 2}) for cell in range(5)]
    data = writer.begin() + writer.rows(rows[:3]) + writer.rows(rows[3:]) + writer.end()
    file = pq.ParquetFile(io.BytesIO(data))
    table = file.read()

    assert file.num_row_groups == 3
    assert table.column("response").to_pylist() == [f"answer {cell}" for cell in range(5)]
    first = table.to_pylist()[0]
    assert (first["parameter.temperature"], first["parameter.stop"], first["parameter.n"]) == (1.0, '["a", "b"]', None)
    assert first["request"] == [{"role": "user", "text": 'Say "hi", please\nnow'}]
    assert (first["brands"], first["ttft_any_us"], first["streamed"]) == ([("Acme", 2)], None, True)
    assert str(first["create_time"]) == "2023-11-14 22:13:20.000001+00:00"
    types = {field.name: str(field.type) for field in table.schema}
    assert [types[f"parameter.{name}"] for name in ("temperature", "stop", "n", "on")] == [
        "double",
        "string",
        "int64",
        "bool",
    ]
    assert (types["cost_nano_usd"], types["score.words"]) == ("int64", "double")


def test_an_empty_parquet_file_has_its_columns() -> None:
    writer = parquet.ParquetWriter({}, ["words"])
    assert pq.read_table(io.BytesIO(writer.begin() + writer.end())).column_names[-1] == "score.words"


def test_the_same_results_are_the_same_parquet_bytes() -> None:
    def written() -> bytes:
        writer = parquet.ParquetWriter({"temperature": [1.0]}, [])
        return writer.begin() + writer.rows([row(cell) for cell in range(50)]) + writer.end()

    assert written() == written()
