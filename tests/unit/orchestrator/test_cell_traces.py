"""Which cells of a run are followed, and how their spans end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.orchestrator.calls import CallId
from services.orchestrator.cell_traces import CellTraces
from services.orchestrator.limits import RunLimits
from services.orchestrator.plan import RunPlan
from services.orchestrator.records import RunRecord, Statistics
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.spec_codec import encode_spec
from services.orchestrator.states import RunStatus
from services.runtime.tracing import NOT_RECORDED, open_tracing
from tests.support.orchestrator import study

STARTED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def plan(cells: int, traceparent: str = STARTED) -> RunPlan:
    run = RunRecord(
        *("run_1", "prj_1", "exp_1", "a study", RunStatus.RUNNING, "hash"),
        RunLimits().in_force(),
        *("usr_1", "", "dlg_1"),
        created_us=1,
        statistics=Statistics(cells_total=cells),
    )
    return RunPlan(replace(run, traceparent=traceparent), encode_spec(study(rows=10)))


@pytest.mark.parametrize(
    ("cells", "most", "fewest_followed", "most_followed"),
    [(40, 50, 40, 40), (50, 50, 50, 50), (100_000, 50, 45, 55), (1_000, 100, 90, 110), (10, 0, 0, 0)],
)
def test_a_bounded_number_of_cells_is_followed_the_same_everywhere(
    tmp_path: Path, cells: int, most: int, fewest_followed: int, most_followed: int
) -> None:
    with open_tracing(OrchestratorSettings(trace_file=tmp_path / "spans")) as tracer:
        assert tracer is not None
        first, second = (CellTraces(tracer, plan(cells), most) for _ in range(2))
        followed = [cell for cell in range(cells) if first.begin(CallId("run_1", cell, 1), "mock/small")]
        assert fewest_followed <= len(followed) <= most_followed
        assert followed[:20] == [
            cell for cell in range(followed[19] + 1 if len(followed) > 19 else cells)
            if second.begin(CallId("run_1", cell, 1), "mock/small")
        ][:20]  # fmt: skip
        assert all(first.context(cell) for cell in followed)


def test_a_run_that_is_not_recorded_has_none(tmp_path: Path) -> None:
    assert CellTraces.of_run(None, plan(4), 50) is None
    with open_tracing(OrchestratorSettings(trace_file=tmp_path / "spans")) as tracer:
        assert CellTraces.of_run(tracer, plan(4, ""), 50) is None
        assert CellTraces.of_run(tracer, plan(4, NOT_RECORDED), 50) is None
        assert CellTraces.of_run(tracer, plan(4), 50) is not None


def test_the_last_call_decides_how_a_cell_ends(tmp_path: Path) -> None:
    file = tmp_path / "spans"
    with open_tracing(OrchestratorSettings(trace_file=file)) as tracer:
        assert tracer is not None
        traces = CellTraces(tracer, plan(4), 50)
        for cell, endings in enumerate([[""], ["PROVIDER_ERROR", ""], ["PROVIDER_ERROR", "RATE_LIMITED"]]):
            contexts = set()
            for attempt, ending in enumerate(endings, 1):
                contexts.add(traces.begin(CallId("run_1", cell, attempt), "mock/small"))
                traces.told(CallId("run_1", cell, attempt), ending)
            assert len(contexts) == 1, "a cell that is called again has one span"
            traces.end(cell)
            traces.end(cell)
            assert traces.context(cell) == ""
        traces.told(CallId("run_1", 9, 1), "PROVIDER_ERROR")
        traces.end(9)
    spans = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(span["attributes"]["llmlab.cell"], span["attributes"].get("error.type")) for span in spans] == [
        (0, None),
        (1, None),
        (2, "RATE_LIMITED"),
    ]
    assert {span["parent_span_id"] for span in spans} == {"00f067aa0ba902b7"}
