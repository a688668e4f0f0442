import csv
import io
import json

import pytest

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
    return writer.begin() + "".join(writer.rows(page) for page in pages) + writer.end()


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
