"""One trace of a command holds the whole way of each cell."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.command import llmlab

STUDY = """
name: traced
prompts: ["Explain {{topic}} to zebras."]
dataset: {rows: [{topic: gravity}, {topic: soap}]}
models: [mock/small, mock/large]
scorers:
  - quality
  - {name: judge, parameters: {model: mock/medium, rubric: It is clear., samples: 2}}
"""
CELLS = 4

Span = dict[str, Any]

# Each span of a cell but its calls, and the one that it lies below.
WAY_OF_A_CELL = {
    ("llmlab-orchestrator", "cell"): ("llmlab-orchestrator", "llmlab.api.orchestrator.v1.RunService/StartRun"),
    ("llmlab-gateway", "hold"): ("llmlab-gateway", "call"),
    ("llmlab-cost", "hold"): ("llmlab-gateway", "hold"),
    ("llmlab-gateway", "chat"): ("llmlab-gateway", "call"),
    ("llmlab-gateway", "settle"): ("llmlab-gateway", "call"),
    ("llmlab-cost", "settle"): ("llmlab-gateway", "settle"),
    ("llmlab-metrics", "score"): ("llmlab-orchestrator", "cell"),
}


def place(span: Span) -> tuple[str, str]:
    return span["service"], span["name"].removesuffix(" small").removesuffix(" large").removesuffix(" medium")


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if place(span)[1] == name]


def test_one_trace_holds_the_way_of_every_cell(tmp_path: Path) -> None:
    study, file, home = tmp_path / "study.yaml", tmp_path / "spans.jsonl", tmp_path / "home"
    study.write_text(STUDY)
    # An RPC that leaves without the trace's context begins one of its own.
    finished = llmlab("run", str(study), "--json", home=home, LLMLAB_TRACE_FILE=str(file), LLMLAB_TRACE_RATIO="1")
    assert finished.exit_code == 0, finished.notes
    text = file.read_text(encoding="utf-8")
    spans: list[Span] = [json.loads(line) for line in text.splitlines()]
    by_id = {span["span_id"]: span for span in spans}

    assert len({span["trace_id"] for span in spans}) == 1
    (root,) = [span for span in spans if not span["parent_span_id"]]
    assert place(root) == ("llmlab-cli", "llmlab run")
    assert all(span["parent_span_id"] in by_id for span in spans if span is not root)
    (started,) = [span for span in spans if span["service"] == "llmlab-cli" and span["name"].endswith("/StartRun")]
    assert started["parent_span_id"] == root["span_id"]

    found = Counter(place(span) for span in spans)
    assert found["llmlab-orchestrator", "cell"] == CELLS
    assert found["llmlab-metrics", "score"] == 2 * CELLS, "the judge is asked by itself"
    assert found["llmlab-gateway", "chat"] == found["llmlab-cost", "settle"] == found["llmlab-gateway", "call"]
    callers = Counter(place(by_id[above]) for above in {each["parent_span_id"] for each in named(spans, "call")})
    assert callers == {("llmlab-orchestrator", "cell"): CELLS, ("llmlab-metrics", "score"): CELLS}
    for span in spans:
        above = by_id.get(span["parent_span_id"], {})
        if place(span) in WAY_OF_A_CELL:
            assert place(above) == WAY_OF_A_CELL[place(span)]
            assert above["start_us"] <= span["start_us"] + 1_000, "clocks are read in another order than spans begin"
    attempts = {span["attributes"]["llmlab.attempt.id"] for span in named(spans, "chat")}
    assert attempts == {span["attributes"]["llmlab.attempt.id"] for span in named(spans, "settle")}
    chat = next(span for span in named(spans, "chat") if span["status"] == "UNSET")
    assert chat["name"] in {"chat small", "chat large", "chat medium"}
    assert chat["attributes"]["gen_ai.provider.name"] == "mock"
    assert chat["attributes"]["gen_ai.usage.output_tokens"] > 0

    api_key = json.loads((home / "credentials.json").read_text())["api_key"]
    for hidden in (
        api_key,
        (home / "service.key").read_text().strip(),
        "Bearer",
        "eyJ",
        "zebras",
        "gravity",
        "It is clear",
    ):
        assert hidden not in text
