"""The command alone: all services inside it, on SQLite."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from llmlab.client import SERVICES
from tests.support.cluster import mock_provider
from tests.support.command import ROOT, llmlab, services_up, typed


def test_the_demo_runs_and_runs_again(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    owners_keys = set()
    for _ in range(2):
        finished = llmlab("demo", home=home, cwd=tmp_path)  # from any folder: the study is part of the package
        assert finished.exit_code == 0, finished.notes
        assert "144/144" in finished.notes
        assert "calls failed and were tried again" in finished.notes
        for expected in ("gateway", "identity", "SERVING", "mock/large", "quality", "total"):
            assert expected in finished.output, finished.output
        owners_keys.add((home / "credentials.json").read_text())
    runs = llmlab("runs", "--json", home=home).json()
    assert [run["status"] for run in runs] == ["COMPLETED", "COMPLETED"]
    assert len(owners_keys) == 1, "the owner's key is made once"
    for secret in ("credentials.json", "service.key"):
        assert stat.S_IMODE((home / secret).stat().st_mode) == 0o600, "and readable by nobody else"


def test_the_demo_prints_its_study_to_begin_an_own_one_with(tmp_path: Path) -> None:
    printed = llmlab("demo", "--print", home=tmp_path / "home", cwd=tmp_path)
    assert printed.exit_code == 0
    assert printed.output == (ROOT / "examples" / "sweep.yaml").read_text(encoding="utf-8")
    assert not (tmp_path / "home").exists()


def test_services_that_do_not_answer_are_a_clear_error(tmp_path: Path) -> None:
    nowhere: dict[str, Any] = {f"LLMLAB_{name.upper()}_TARGET": "127.0.0.1:9" for name in SERVICES}
    finished = llmlab("runs", home=tmp_path / "home", LLMLAB_API_KEY="llmlab_x", **nowhere)
    assert finished.exit_code == 1
    assert "No service answers at" in finished.notes
    assert "Traceback" not in finished.notes


def test_the_study_for_real_providers_runs_with_keys_from_the_environment(tmp_path: Path) -> None:
    """OpenAI's and Anthropic's base URLs point to a server on the loopback interface that speaks their formats."""
    with mock_provider(tmp_path, any_model="small") as mock:
        host = mock.base_url.removesuffix("/v1")
        finished = llmlab(
            *("run", "examples/providers.yaml", "--study", "openai-and-anthropic", "--json"),
            home=tmp_path / "home",
            OPENAI_API_KEY="sk-test",
            OPENAI_BASE_URL=mock.base_url,
            ANTHROPIC_API_KEY="sk-ant-test",
            ANTHROPIC_BASE_URL=host,
        )
        assert finished.exit_code == 0, finished.notes
        summary = finished.json()
        assert summary["run"]["statistics"]["cells_done"] == 8
        assert {point["model"] for point in summary["points"]} == {"openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"}
        assert all(point["cost"]["cost_nano_usd"] > 0 for point in summary["points"])
        assert len(mock.calls()) == 8
        assert "sk-" not in (tmp_path / "home" / "llmlab.log").read_text()


def test_without_a_key_the_setting_is_named(tmp_path: Path) -> None:
    finished = llmlab("run", "examples/providers.yaml", "--study", "openai-only", home=tmp_path / "home")
    assert finished.exit_code == 1
    assert "OPENAI_API_KEY" in finished.notes
    assert "spec.models[0].model" in finished.notes


def test_a_judge_is_paid_by_its_run_and_a_spent_budget_makes_scores_absent(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with services_up(home):
        finished = typed("run", "examples/judge.yaml", "--json", home=home)
        assert finished.exit_code == 0, finished.notes
        summary = finished.json()
        answers = sum(point["cost"]["cost_nano_usd"] for point in summary["points"])
        verdicts = sum(point["scoring_cost"]["cost_nano_usd"] for point in summary["points"])
        assert verdicts > 0
        spent = typed("spend", "--by", "run", "--json", home=home).json()["rows"][0]
        assert (spent["calls"], spent["cost"]["cost_nano_usd"]) == (16 + 48, answers + verdicts)
        exported = typed("export", "latest", "--format", "json", home=home).json()
        judgements = [each["judgements"]["judge"] for each in exported]
        assert [(len(each["reasons"]), all(each["reasons"])) for each in judgements] == [(3, True)] * 16
        assert sum(each["cost_nano_usd"] for each in judgements) == verdicts

        limited = ("create", "--limit", "0.01usd", "--period", "total", "--tag", "feature=judge")
        assert typed("budgets", *limited, home=home).exit_code == 0
        finished = typed("run", "examples/judge.yaml", "--json", home=home)
        assert finished.exit_code == 0, finished.notes
        exported = typed("export", "latest", "--format", "json", home=home).json()
        assert {each["status"] for each in exported} == {"done"}
        assert all(each["scores"]["quality"] is not None and each["scores"]["judge"] is None for each in exported)
        reasons = {each["judgements"]["judge"]["absent_reason"].partition(":")[0] for each in exported}
        assert reasons == {"BUDGET_EXCEEDED"}
        assert finished.json()["points"][0].get("scoring_cost") is None
