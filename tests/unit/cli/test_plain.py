"""Messages as plain values."""

from __future__ import annotations

from llmlab.api.common.v1 import usage_pb2, value_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.plain import enum_name, to_plain


def test_numbers_times_enums_values_and_lists_become_plain() -> None:
    result = run_pb2.Result(
        run_id="run_1",
        cell_index=2**53 + 1,
        status=run_pb2.CELL_STATUS_DONE,
        parameters={"temperature": value_pb2.Value(double_value=0.5), "a": value_pb2.Value(int_value=1)},
        usage=usage_pb2.TokenUsage(input_tokens=7),
    )
    result.create_time.FromJsonString("2026-11-21T10:00:00Z")
    result.scores.add(name="quality", value=0.0)
    assert to_plain(result) == {
        "run_id": "run_1",
        "cell_index": 2**53 + 1,
        "status": "DONE",
        "parameters": {"a": 1, "temperature": 0.5},
        "usage": {"input_tokens": 7},
        "scores": [{"name": "quality", "value": 0.0}],
        "create_time": "2026-11-21T10:00:00+00:00",
    }


def test_an_enum_value_from_a_newer_server_is_its_number() -> None:
    assert enum_name(run_pb2.RunStatus.DESCRIPTOR, run_pb2.RUN_STATUS_COMPLETED) == "COMPLETED"
    assert enum_name(run_pb2.RunStatus.DESCRIPTOR, 99) == "99"
