"""The command against services that `llmlab up` keeps running: what a person types, and what comes back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from llmlab.api.common.v1 import value_pb2
from llmlab.api.metrics.v1 import metrics_pb2
from llmlab.cli import plan_command
from llmlab.cli.connection import connect
from llmlab.client import SERVICES
from tests.support.command import ROOT, typed

STUDY = """
name: small
prompts: ["Explain {{topic}} in one sentence."]
dataset: {rows: [{topic: tides}, {topic: yeast}]}
models: [mock/small, mock/large]
grid: {temperature: [0.0, 1.0]}
repeats: 2
scorers: [quality, {name: contains, label: on_topic, reference: "{{topic}}"}]
limits: {concurrency: 8}
"""
CELLS = 16


@pytest.fixture(scope="module")
def run_id(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of the small study."""
    study = tmp_path_factory.mktemp("study") / "small.yaml"
    study.write_text(STUDY)
    finished = typed("run", str(study), "--json", home=home)
    assert finished.exit_code == 0, finished.notes
    summary = finished.json()
    assert len(summary["points"]) == 4
    assert summary["run"]["status"] == "COMPLETED"
    assert summary["run"]["statistics"]["cells_done"] == CELLS
    return str(summary["run"]["run_id"])


def test_status_names_every_service(home: Path) -> None:
    rows = typed("status", "--json", home=home).json()
    assert {row["service"]: row["health"] for row in rows} == dict.fromkeys(SERVICES, "SERVING")


def test_the_closing_table_shows_quality_latency_tokens_and_cost(home: Path, tmp_path: Path) -> None:
    study = tmp_path / "small.yaml"
    study.write_text(STUDY)
    finished = typed("run", str(study), home=home)
    assert finished.exit_code == 0, finished.notes
    for expected in ("mock/small", "mock/large", "temperature=1", "quality", "on_topic", "p95", "cost", "4/4"):
        assert expected in finished.output, finished.output
    assert f"{CELLS}/{CELLS}" in finished.notes


def test_what_is_reused_costs_nothing_and_is_not_asked_about(
    home: Path, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "small.yaml"
    study.write_text(STUDY)
    monkeypatch.setattr(plan_command, "ASK_ABOVE_NANO_USD", 0)
    asked = typed("run", str(study), home=home, stdin="n\n")
    assert (asked.exit_code, "Nothing was called" in asked.notes) == (2, True)
    before = typed("runs", "--json", home=home).json()
    reused = typed("run", str(study), "--reuse", "--json", home=home)
    assert reused.exit_code == 0, reused.notes
    assert "of an earlier start" in reused.notes
    assert reused.json()["run"]["run_id"] in {run["run_id"] for run in before}
    assert typed("runs", "--json", home=home).json() == before


LOSSY_STUDY = """
name: lossy
prompts: ["Explain {{{{topic}}}} in one sentence."]
dataset: {{rows: [{rows}]}}
models: [{{model: mock/instant, options: {{error_rate: {rate}, error_kinds: content_policy}}}}]
grid: {{temperature: [0.0]}}
scorers: [quality]
"""
LOSSY_CELLS = 40


def test_lost_answers_widen_the_bounds_and_move_no_mean_silently(home: Path, tmp_path: Path) -> None:
    found = {}
    for rate in (0.0, 0.1):
        study = tmp_path / f"{rate}.yaml"
        rows = ", ".join(f"{{topic: subject {number}}}" for number in range(LOSSY_CELLS))
        study.write_text(LOSSY_STUDY.format(rows=rows, rate=rate))
        finished = typed("run", str(study), home=home)
        (point,) = typed("run", str(study), "--json", home=home).json()["points"]
        results = typed("results", "latest", "--json", "--limit", str(LOSSY_CELLS), home=home).json_lines()
        scores = {
            result.get("cell_index", 0): score["value"]
            for result in results
            for score in result.get("scores", ())
            if score["name"] == "quality"
        }
        (estimate,) = (score["estimate"] for score in point["scores"] if score["name"] == "quality")
        found[rate] = (finished, point, estimate, scores)

    _, _, whole, every = found[0.0]
    finished, point, estimate, kept = found[0.1]
    lost = LOSSY_CELLS - len(kept)
    assert 2 <= lost <= 8
    assert (point["cells_missing"], estimate["missing"], estimate["count"]) == (lost, lost, len(kept))
    assert f"{lost} of {LOSSY_CELLS} answers are missing" in finished.notes
    # The mean is that of what is there, which is what the same cells had in the run without failures.
    assert kept == {cell: every[cell] for cell in kept}
    assert estimate["value"] == pytest.approx(sum(kept.values()) / len(kept))
    # The bounds are those with every lost answer at 0 and at 1, and hold the mean that was lost.
    assert "low_if_missing" not in whole
    assert estimate["low_if_missing"] == pytest.approx(sum(kept.values()) / LOSSY_CELLS)
    assert estimate["high_if_missing"] == pytest.approx((sum(kept.values()) + lost) / LOSSY_CELLS)
    assert estimate["low_if_missing"] < whole["value"] < estimate["high_if_missing"]
    shown = f"({estimate['low_if_missing']:.2f}-{estimate['high_if_missing']:.2f})"
    assert shown in finished.output, finished.output


def test_a_watcher_of_an_ended_run_sees_every_event_once_in_order(home: Path, run_id: str) -> None:
    events = typed("watch", run_id, "--json", home=home).json_lines()
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert "started" in events[0]
    assert "completed" in events[-1]
    assert sorted(event["result"].get("cell_index", 0) for event in events if "result" in event) == list(range(CELLS))


def test_runs_lists_the_run_and_latest_is_the_newest(home: Path, run_id: str) -> None:
    runs = typed("runs", "--json", home=home).json()
    assert run_id in [run["run_id"] for run in runs]
    assert runs[0]["run_id"] in typed("results", "latest", "--json", "--limit", "1", home=home).output


def test_results_carry_request_response_usage_cost_and_scores(home: Path, run_id: str) -> None:
    results = typed("results", run_id, "--json", home=home).json_lines()
    assert len(results) == CELLS
    for result in results:
        assert result["status"] == "DONE"
        assert result["request"][0]["parts"][0]["text"].startswith("Explain ")
        assert result["response"][0]["text"]
        assert result["usage"]["output_tokens"] > 0
        assert result["cost"]["cost_nano_usd"] > 0
        assert {"quality", "on_topic"} <= {score["name"] for score in result["scores"]}


def test_a_broken_export_goes_on_where_it_broke_and_an_unusable_one_begins_again(
    home: Path, run_id: str, tmp_path: Path
) -> None:
    target = tmp_path / "out.parquet"
    assert (
        typed("export", run_id, "--format", "parquet", "-o", str(target), "--json", home=home).json()["results"]
        == CELLS
    )
    assert target.read_bytes()[:4] == b"PAR1"
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob("*.resume"))
    begun = {
        "run_id": run_id,
        "file_format": "csv",
        "score_set": "",
        "bytes": 3,
        "results": 1,
        "resume_token": "no longer good",
    }
    broken = tmp_path / "out.csv"
    broken.with_name("out.csv.part").write_bytes(b"begun")
    broken.with_name("out.csv.resume").write_text(json.dumps(begun))
    finished = typed("export", run_id, "-o", str(broken), home=home)
    assert "Going on behind 1 results" in finished.notes
    assert "begins again" in finished.notes
    assert len(list(csv.DictReader(io.StringIO(broken.read_text(), newline="")))) == CELLS


def test_a_run_is_scored_anew_beside_its_own_scores(home: Path, run_id: str, tmp_path: Path) -> None:
    study = tmp_path / "checks.yaml"
    study.write_text(STUDY.replace("label: on_topic", "label: named"))
    finished = typed("rescore", run_id, "strict", str(study), "--json", home=home)
    assert finished.exit_code == 0, finished.notes
    assert {"quality", "named"} <= {score["name"] for score in finished.json()["points"][0]["scores"]}
    exported = typed("export", run_id, "--format", "jsonl", "--scores", "strict", home=home).json_lines()
    own = typed("export", run_id, "--format", "jsonl", home=home).json_lines()
    assert all("named" in each["scores"] and "on_topic" not in each["scores"] for each in exported)
    assert all("on_topic" in each["scores"] for each in own)
    assert [each["scores"]["named"] for each in exported] == [each["scores"]["on_topic"] for each in own]
    (listed,) = typed("results", run_id, "--scores", "strict", "--limit", "1", "--json", home=home).json_lines()
    assert "named" in {score["name"] for score in listed["scores"]}
    page = tmp_path / "strict.html"
    assert typed("report", run_id, "--scores", "strict", "-o", str(page), home=home).exit_code == 0
    assert "scores of strict" in page.read_text()
    assert "named, 95 % interval" in page.read_text()
    refused = typed("rescore", run_id, "strict", "--scorer", "quality", home=home)
    assert "of other scorers" in refused.notes
    assert typed("rescore", run_id, "empty", home=home).exit_code == 2


def test_two_models_are_compared_and_conversations_shown(home: Path, run_id: str) -> None:
    compared = typed("compare", "mock/small", "mock/large", "--run", run_id, "--differing", "1", home=home)
    assert compared.exit_code == 0, compared.notes
    for expected in ("answered", "quality", "on_topic", "mock/small", "A - B", "Compared at 2 prompts"):
        assert expected in compared.output + compared.notes, compared.output
    figures = typed("compare", f"{run_id}:mock/small", "mock/large", "--run", run_id, "--json", home=home).json()
    assert figures["units_shared"] == 2
    assert typed("compare", run_id, run_id, home=home).exit_code == 2
    shown = typed("conversations", run_id, "--json", home=home).json_lines()
    assert [len(each["results"]) for each in shown] == [8, 8]
    slowest = typed("results", run_id, "--first", "slowest", "--json", home=home).json_lines()
    latencies = [each["timing"]["latency_us"] for each in slowest]
    assert latencies == sorted(latencies, reverse=True)
    best = typed("results", run_id, "--first", "best", "--json", home=home).json_lines()
    qualities = [score["value"] for each in best for score in each["scores"] if score["name"] == "quality"]
    assert (len(qualities), qualities) == (CELLS, sorted(qualities, reverse=True))


def test_two_models_are_judged_in_pairs(home: Path, run_id: str) -> None:
    shown = typed(
        *("judge", "mock/small", "mock/large", "--run", run_id, "--by", "mock/medium", "--pairs", "3"), home=home
    )
    assert shown.exit_code == 0, shown.notes
    for expected in ("A wins: mock/small", "B wins: mock/large", "no verdict", "Score of A", "calls cost $0."):
        assert expected in shown.output + shown.notes, shown.output
    judged = typed(
        *("judge", "mock/small", f"{run_id}:mock/large", "--run", run_id, "--by", "mock/medium", "--json"), home=home
    ).json()
    assert [each["pair_id"] for each in judged["judgements"]] == ["prompt-1/0", "prompt-1/1"]
    assert typed("judge", "mock/small", "mock/small", "--by", "mock/medium", home=home).exit_code == 2
    for command in (("judge", "--by", "mock/medium"), ("compare",)):
        missing = typed(*command, "mock/small", "mock/none", "--run", run_id, home=home)
        assert missing.exit_code == 2
        assert f"Run {run_id} has no model mock/none; it has mock/large, mock/small." in missing.notes
    unknown = typed("judge", "mock/small", "mock/large", "--run", run_id, "--by", "mock/none", home=home)
    assert (unknown.exit_code, "4 calls: MODEL_NOT_FOUND" in unknown.notes) == (1, True), unknown.notes


def test_a_report_is_one_file_with_every_answer(home: Path, run_id: str, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    finished = typed("report", run_id, "-o", str(target), "--json", home=home)
    assert finished.json() == {"run_id": run_id, "file": str(target), "responses": CELLS}
    assert target.read_text(encoding="utf-8").count('"cell":') == CELLS
    assert typed("report", run_id, "-o", str(tmp_path), home=home).exit_code == 2


@pytest.mark.parametrize("file_format", ["csv", "json", "jsonl"])
def test_an_export_holds_every_result(home: Path, run_id: str, tmp_path: Path, file_format: str) -> None:
    target = tmp_path / f"out.{file_format}"
    finished = typed("export", run_id, "--format", file_format, "-o", str(target), home=home)
    assert finished.exit_code == 0, finished.notes
    text = target.read_text(encoding="utf-8")
    if file_format == "csv":
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    elif file_format == "json":
        rows = json.loads(text)
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    assert sorted(int(row["cell_index"]) for row in rows) == list(range(CELLS))
    assert typed("export", run_id, "--format", file_format, home=home).output == text


def test_a_brand_study_ends_with_its_brands(home: Path) -> None:
    finished = typed("run", str(ROOT / "examples" / "brands.yaml"), home=home)
    assert (finished.exit_code, "share of" in finished.output) == (0, True), finished.notes
    summary = typed("brands", "latest", "--json", home=home).json()
    found = {each["brand"]: each["figures"] for each in summary["brands"]}
    assert {name: each["answers"] for name, each in found.items()} == dict.fromkeys(
        ("Stripe", "PayPal", "Adyen", "Square", "Klarna"), 72
    )
    assert found["PayPal"]["mentions"] > 0
    assert found["Klarna"].get("mentions", 0) == 0
    assert "stripe.com" in [each["domain"] for each in summary["domains"]]


async def test_a_program_has_answers_judged_at_the_expense_of_a_run(home: Path, run_id: str) -> None:
    parameters = {
        "model": value_pb2.Value(string_value="mock/large"),
        "rubric": value_pb2.Value(string_value="It names a cause."),
    }
    judge = metrics_pb2.ScorerSpec(name="judge", parameters=parameters)
    sample = metrics_pb2.Sample(sample_id="900", prompt="Why is the sea salt?", answer="Rivers carry salts.")
    async with connect(home) as client:
        (scored,) = await client.score_run_batch(run_id, [sample], [judge])
    assert any(score.HasField("value") for score in scored.scores)
    assert scored.scores[0].cost.cost_nano_usd > 0


def test_a_trend_over_runs_says_what_is_within_noise(home: Path, tmp_path: Path) -> None:
    runs = []
    for text in ("Use Acme.", "Acme is fine.", "Use Globex."):
        study = tmp_path / "trend.yaml"
        model = f"{{model: mock/instant, options: {{text: {text}}}}}"
        rows = ", ".join(f"{{use: {number}}}" for number in range(20))
        asked = f'prompts: ["Which one for {{{{use}}}}?"]\ndataset: {{rows: [{rows}]}}\n'
        study.write_text(f"name: x\n{asked}models: [{model}]\nbrands: [Acme, Globex]\n")
        runs.append(typed("run", str(study), "--json", home=home).json()["run"]["run_id"])
    trend = typed("brands", *reversed(runs), "--json", home=home).json()
    assert [step["run"]["run_id"] for step in trend["runs"]] == runs
    changes = [
        [brand.get("change", {}) for brand in step["brands"]] for step in (*trend["runs"], trend["first_to_last"])
    ]
    assert [[each.get("difference") for each in step] for step in changes] == [[None] * 2, [0, 0], [-1, 1], [-1, 1]]
    assert [[each.get("within_noise") for each in step] for step in changes[1:]] == [[True] * 2, [None] * 2, [None] * 2]
    shown = typed("brands", *runs, home=home)
    assert ("within noise" in shown.output, "-100 points" in shown.output) == (True, True), shown.output
    lines = csv.DictReader(io.StringIO(typed("brands", *runs, "--format", "csv", home=home).output, newline=""))
    assert [line["within_noise"] for line in lines] == ["", "", "true", "true", "false", "false"]
    for wrong in ((runs[0], runs[0]), (*runs, "--against", runs[0])):
        assert typed("brands", *wrong, home=home).exit_code == 2


def test_a_study_takes_a_prompt_and_a_dataset_that_the_project_keeps(home: Path, tmp_path: Path) -> None:
    study, table = tmp_path / "study.yaml", tmp_path / "capitals.csv"
    study.write_text(
        "name: x\nprompts: [Hello., {saved: capital}]\ndataset: {saved: capitals}\nmodels: [mock/instant]\n"
    )
    table.write_text("country\nPeru\nKenya\n")
    unknown = typed("plan", str(study), home=home)
    assert (unknown.exit_code, "prompts list` lists them" in unknown.notes) == (2, True), unknown.notes

    file = str(ROOT / "examples" / "prompt.yaml")
    made = typed("prompts", "create", file, "--json", home=home).json()
    assert (made["created"], made["prompt"]["message_count"]) == (True, 2)
    assert "nothing was created" in typed("prompts", "create", file, home=home).notes
    assert made["prompt"]["prompt_id"] in typed("prompts", "list", home=home).output
    assert "{{country}}" in typed("prompts", "show", "capital", home=home).output
    assert "dataset: {saved: capitals}" in typed("datasets", "create", str(table), home=home).notes
    assert "nothing was created" in typed("datasets", "create", str(table), "--name", "x", home=home).notes
    assert "Kenya" in typed("datasets", "show", "capitals", home=home).output
    assert "capitals" in typed("datasets", "list", home=home).output
    assert typed("run", str(study), "--json", home=home).exit_code == 0
    for command, name in (("prompts", "capital"), ("datasets", "capitals")):
        assert typed(command, "delete", name, home=home).exit_code == 0
        assert typed(command, "list", "--json", home=home).json() == []
    # Two prompts and two rows: the run has its copies.
    assert len(typed("results", "latest", "--json", home=home).output.splitlines()) == 4


def test_a_study_takes_its_brands_from_a_brand_set(home: Path, tmp_path: Path) -> None:
    file, study = ROOT / "examples" / "brand-set.yaml", tmp_path / "study.yaml"
    study.write_text('name: x\nprompts: ["PayPal?"]\nmodels: [mock/instant]\nbrand_set: payments\n')
    unknown = typed("run", str(study), home=home)
    assert (unknown.exit_code, "brandsets list` lists them" in unknown.notes) == (2, True), unknown.notes

    made = typed("brandsets", "create", str(file), "--json", home=home).json()
    assert (made["created"], made["brand_set"]["brand_count"]) == (True, 4)
    assert "nothing was created" in typed("brandsets", "create", str(file), home=home).notes
    assert made["brand_set"]["brand_set_id"] in typed("brandsets", "list", home=home).output
    assert "paypal.me" in typed("brandsets", "show", "payments", home=home).output
    assert typed("run", str(study), home=home).exit_code == 0
    assert typed("brandsets", "delete", "payments", home=home).exit_code == 0
    summary = typed("brands", "latest", "--json", home=home).json()
    assert sorted(each["brand"] for each in summary["brands"]) == ["Adyen", "Klarna", "PayPal", "Stripe"]
    assert typed("brandsets", "list", "--json", home=home).json() == []


def test_complete_takes_prompt_picture_schema_and_parameters(home: Path, tmp_path: Path) -> None:
    picture, schema = tmp_path / "dot.png", tmp_path / "schema.json"
    picture.write_bytes(b"\x89PNG")
    schema.write_text('{"type": "object"}')
    asked = ("complete", "Name a colour.", "--image", str(picture), "--schema", str(schema), "--temperature", "0")
    first = typed(*asked, "--seed", "7", "--stop", "END", "--json", home=home).json()
    assert (first["model"], first["finish_reason"]) == ("mock/medium", "STOP")
    again = typed(*asked, "--seed", "7", "--stop", "END", "--json", "--cache", "off", home=home).json()
    assert "reuse" not in again
    piped = typed("complete", "--temperature", "0", "--system", "Be short.", home=home, stdin="Name a colour.\n")
    repeated = typed("complete", "--temperature", "0", "--system", "Be short.", home=home, stdin="Name a colour.\n")
    assert (repeated.exit_code, repeated.output) == (0, piped.output)
    assert "from the cache" in repeated.notes
    for wrong in (("complete", "x", "--image", "none.png"), ("complete",), ("complete", "x", "--schema", "none.json")):
        assert typed(*wrong, home=home).exit_code == 2


def test_a_kept_conversation_is_gone_on_with_resumed_shown_and_deleted(home: Path) -> None:
    begun = typed("chat", "My name is Ada.", "--session", "new", "--model", "mock/instant", "--json", home=home)
    assert begun.exit_code == 0, begun.notes
    session_id = begun.json()["session_id"]
    assert session_id in begun.notes
    more = typed("chat", "--session", session_id, home=home, stdin="And yours?\nSure?\n")
    assert more.exit_code == 0, more.notes
    resumed = typed("chat", "--session", session_id, "--resume", home=home)
    assert resumed.output.strip() == more.output.strip().splitlines()[-1]
    (listed,) = [row for row in typed("chats", "list", "--json", home=home).json() if row["session_id"] == session_id]
    assert (listed["turns"], listed["title"], listed["model"]) == (3, "My name is Ada.", "mock/instant")
    shown = typed("chats", "show", session_id, home=home).output
    assert [line[:15] for line in shown.splitlines() if line.startswith("you> ")] == [
        "you> My name is",
        "you> And yours?",
        "you> Sure?",
    ]
    refused = typed("chat", "Hello", "--session", session_id, "--model", "mock/small", home=home)
    assert (refused.exit_code, "--model" in refused.notes) == (2, True)
    assert typed("chat", "Hello", "--resume", home=home).exit_code == 2
    assert typed("chats", "delete", session_id, home=home).exit_code == 0
    gone = typed("chat", "Hello", "--session", session_id, home=home)
    assert (gone.exit_code, "NOT_FOUND" in gone.notes) == (1, True)


def test_chat_streams_an_answer_and_says_what_it_took(home: Path) -> None:
    finished = typed("chat", "Hello there", home=home)
    assert finished.exit_code == 0
    assert finished.output.strip()
    assert "first token" in finished.notes
    answer = typed("chat", "Hello there", "--json", home=home).json()
    assert answer["text"]
    assert answer["finish_reason"] == "STOP"
    conversation = typed("chat", home=home, stdin="One\nTwo\n\n")
    assert conversation.exit_code == 0
    assert conversation.notes.count("first token") == 2


def test_spend_counts_the_calls(home: Path, run_id: str) -> None:
    spend = typed("spend", "--by", "model", "--json", home=home).json()
    calls = {row["keys"][0]: row["calls"] for row in spend["rows"]}
    assert calls["mock/large"] >= CELLS / 2
    assert spend["total"]["calls"] == sum(calls.values())
    assert "total" in typed("spend", "--by", "day,model", home=home).output
    assert run_id


BAD_INPUT = {
    ("mock/large", "mock/enormous"): "spec.models[1].model",
    ("mock/large", "nobody/model"): "spec.models[1].model",
    ("{{topic}} in", "{{subject}} in"): "subject",
    ("scorers: [quality,", "scorers: [qualty,"): "spec.scorers[0]",
    ("temperature: [0.0, 1.0]", "temperature: [0.0, 9.0]"): "spec.grid[0].values[1]",
    ("temperature: [0.0, 1.0]", "temperature: []"): "grid.temperature",
    ("name: small", "name: small: x"): "not valid YAML",
    ("name: small", "name: small\nname: other"): "'name' stands twice",
    ("mock/large]\ngrid: {temperature: [0.0, 1.0]}\nrepeats: 2", "mock/small, " * 60 + "mock/large]\nrepeats: 10000"): (
        "1,000,000"
    ),
}


def test_bad_input_is_named_and_nothing_is_written_or_spent(home: Path, tmp_path: Path) -> None:
    # One test for all of them: each command is a process, and the state is looked at once before and once after.
    before = typed("spend", "--json", home=home).json().get("total"), _counts(home)
    study = tmp_path / "small.yaml"
    for change, complaint in BAD_INPUT.items():
        study.write_text(STUDY.replace(*change))
        finished = typed("run", str(study), home=home)
        assert finished.exit_code in (1, 2), change
        assert complaint in finished.notes, change
        assert "Traceback" not in finished.notes + finished.output, change
    assert (typed("spend", "--json", home=home).json().get("total"), _counts(home)) == before


def _counts(home: Path) -> int:
    return len(typed("runs", "--json", "--limit", "1000", home=home).json())


@pytest.mark.parametrize("key", ["llmlab_test_wrong", ""])
def test_a_wrong_key_is_refused_with_advice(home: Path, key: str, tmp_path: Path) -> None:
    targets = json.loads((home / "endpoints.json").read_text())["targets"]
    environ = {f"LLMLAB_{name.upper()}_TARGET": target for name, target in targets.items()}
    finished = typed("runs", home=tmp_path / "elsewhere", **environ, LLMLAB_API_KEY=key)
    assert finished.exit_code == 1
    assert "CREDENTIAL" in finished.notes
    assert "Traceback" not in finished.notes


def test_an_unknown_run_is_told_with_the_way_to_the_known_ones(home: Path) -> None:
    finished = typed("watch", "run_00000000000000000000000000", home=home)
    assert finished.exit_code == 1
    assert "run_00000000000000000000000000" in finished.notes
    assert "-m llmlab.cli runs` lists" in finished.notes


def test_a_token_is_printed_plainly_or_as_json(home: Path) -> None:
    plain = typed("token", home=home).output.strip()
    assert plain.count(".") == 2
    assert typed("token", "--json", home=home).json()["access_token"].count(".") == 2


def test_a_price_of_ones_own_is_set_applied_to_the_past_and_taken_back(home: Path) -> None:
    assert typed("chat", "Hello", "--model", "mock/small", home=home).exit_code == 0
    shown = typed("prices", "mock/small", home=home)
    assert "in force" in shown.output, shown.notes
    made = typed(
        "prices", "set", "mock/small", "--input", "0.5", "--output", "1000", "--from", "2026-01-01", "--json", home=home
    )
    override = made.json()
    assert override["tiers"][0]["reasoning_nano_usd_per_mtok"] == 1_000_000_000_000
    assert override["override_id"] in typed("prices", "overrides", home=home).output
    assert typed("prices", "mock/small", "--json", home=home).json()["price_version"] == override["override_id"]
    seen = typed("prices", "reprice", "--json", home=home).json()["total"]
    assert 1 <= seen["changed_calls"] <= seen["calls"]
    applied = typed("prices", "reprice", "--apply", "--json", home=home).json()
    assert applied["difference"] == seen
    assert "takes it back" in typed("prices", "reprice", "--model", "mock/none", "--apply", home=home).notes
    ids = [entry["repricing_id"] for entry in typed("prices", "repricings", "--json", home=home).json()]
    for repricing_id in reversed(ids[-2:]):
        assert "reversed" in typed("prices", "reverse", repricing_id, home=home).output
    assert "2026" in typed("prices", "unset", override["override_id"], home=home).output


def test_lists_estimates_and_wrong_names(home: Path) -> None:
    listed = typed("prices", "--provider", "anthropic", "--json", home=home).json()
    assert "anthropic/claude-sonnet-4-5" in [entry["model"] for entry in listed]
    assert "output" in typed("prices", "--provider", "openai", home=home).output
    found = typed(
        "estimate", "openai/gpt-4o", "--input-tokens", "1000", "--output-tokens", "100", "--calls", "10", home=home
    )
    assert "expected $0.0350, at most $0.0350" in found.output
    wrong = typed("prices", "opnai/gpt-4o", home=home)
    assert wrong.exit_code == 1
    assert "did you mean openai" in wrong.notes
    assert typed("prices", "set", "mock/small", "--input", "cheap", home=home).exit_code == 2
