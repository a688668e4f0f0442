"""The commands about money against running services: what a person types, and what comes back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.support.command import Finished, typed

NARROW = 80
SMALL_STUDY = "name: s\nprompts: [Hi]\nmodels: [mock/small]\n"


@pytest.fixture(scope="module", autouse=True)
def spent(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Something was spent, by calls and by a run."""
    for model in ("mock/small", "mock/large"):
        assert typed("chat", "Hello", "--model", model, home=home).exit_code == 0
    study = tmp_path_factory.mktemp("spent") / "study.yaml"
    study.write_text(SMALL_STUDY)
    assert typed("run", str(study), home=home).exit_code == 0


def is_narrow(finished: Finished) -> bool:
    return all(len(line) <= NARROW for line in finished.output.splitlines())


@pytest.mark.parametrize("by", ["", "model", "day,model,user,key", "week,provider", "month,run,tag"])
def test_spend_fits_a_narrow_screen_and_adds_up(home: Path, by: str) -> None:
    shown = typed("spend", "--by", by, home=home, columns=NARROW)
    assert shown.exit_code == 0, shown.notes
    assert is_narrow(shown)
    assert "highest day" in shown.output
    answer = typed("spend", "--by", by, "--json", home=home).json()
    rows = answer.get("rows", [])
    assert bool(rows) == bool(by)
    if by and "tag" not in by:
        assert sum(row["cost"]["cost_nano_usd"] for row in rows) == answer["total"]["cost"]["cost_nano_usd"]


def test_spend_is_narrowed_down_compared_and_cut(home: Path) -> None:
    large = typed("spend", "--model", "mock/large", "--json", home=home).json()
    assert {row["keys"][0] for row in large["rows"]} == {"mock/large"}
    assert typed("spend", "--model", "mock/", "--json", home=home).json() == typed("spend", "--json", home=home).json()
    cut = typed("spend", "--top", "1", home=home)
    assert "mock/large" in cut.output
    assert "--top 0 shows all" in cut.notes
    assert "before" in typed("spend", "--compare", "--last", "1w", home=home).output
    assert "total" in typed("spend", "--last", "1h", "--time-zone", "Asia/Kathmandu", "--by", "day", home=home).output


def test_spend_of_the_latest_run(home: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(SMALL_STUDY)
    run_id = typed("run", str(study), "--json", home=home).json()["run"]["run_id"]
    answer = typed("spend", "--run", "latest", "--by", "run", "--json", home=home).json()
    assert [row["keys"] for row in answer["rows"]] == [[run_id]]


def test_spend_is_written_as_a_file_or_to_standard_output(home: Path, tmp_path: Path) -> None:
    for name in ("csv", "json", "focus"):
        target = tmp_path / name
        finished = typed("spend", "--by", "day,model", "--format", name, "--export", str(target), home=home)
        assert "rows written" in finished.notes
        text = target.read_text(encoding="utf-8")
        piped = typed("spend", "--by", "day,model", "--format", name, "--export", "-", home=home)
        assert (piped.output, piped.notes) == (text, "")
        rows = [json.loads(line) for line in text.splitlines()] if name == "json" else csv.DictReader(io.StringIO(text))
        assert len(list(rows)) >= 2


def test_nothing_found_is_said_with_what_there_is(home: Path) -> None:
    shown = typed("spend", "--model", "mock/smal", "--user", "usr_nobody", home=home)
    assert shown.exit_code == 0
    assert "No usage matches --user usr_nobody --model mock/smal in the last 30d." in shown.notes
    assert "include mock/small" in shown.notes
    assert "--user usr_nobody has no usage; those with usage include usr_" in shown.notes
    for command, said in (
        (("spend", "--period", "2001-01"), "No usage in 2001-01."),
        (("budgets", "--tag", "no=body"), "No budget is for tag no=body."),
        (("prices", "--contains", "nothing-like-it"), "No model with a price matches."),
        (("prices", "reprice", "--model", "mock/smal"), "No calls of mock/smal are on record"),
        (("anomalies", "--provider", "mok"), "--provider mok has no usage; those with usage include mock."),
        (("webhooks", "list"), "No webhooks."),
    ):
        shown = typed(*command, home=home)
        assert (shown.exit_code, shown.output) == (0, ""), command
        assert said in shown.notes, (command, shown.notes)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("budgets create --limit 0", "'--limit'"),
        ("budgets create --limit -5", "more than 0"),
        ("budgets create --limit 1e9", "1,000,000"),
        ("budgets create --limit 1 --threshold 0", "'--threshold'"),
        ("budgets create --limit 1 --threshold 1001", "'--threshold'"),
        ("budgets create --limit 1" + "".join(f" --threshold {n}" for n in range(1, 12)), "--threshold"),
        ("budgets create --limit 1 --period fortnightly", "--period takes daily"),
        ("budgets --json create --limit 1", "--json after 'create'"),
        ("budgets update bud_1", "Say what to change"),
        ("spend --by model,user,key,run,tag", "4 dimensions"),
        ("spend --by day,week", "one of day, week and month"),
        ("spend --by model,model", "once"),
        ("spend --by colour", "'colour'"),
        ("spend --last 0d", "--last"),
        ("spend --last 1d --period 2026-11", "not both"),
        ("spend --split", "--by tag"),
        ("spend --compare --by day", "--compare"),
        ("spend --format csv", "--export"),
        ("spend --export x --json", "--json"),
        ("spend --export /", "folder"),
        ("estimate mock/small", "--input-tokens"),
        ("estimate mock/small --input-tokens 99999999999999999", "'--input-tokens'"),
        ("estimate mock/small --input-tokens 1 --calls 99999999999", "'--calls'"),
        ("prices set mock/small --input 0.0000000001 --output 1", "9 decimals"),
        ("prices mock/small --provider mock", "--provider"),
        ("alerts --after 1", "--watch"),
        ("alerts --watch --limit 1", "--limit"),
        ("anomalies --watch --days 3", "--days"),
        ("anomalies --least -1", "'--least'"),
        ("forecast --period week", "--period takes"),
        ("forecast --budget bud_1 --period daily", "--period"),
    ],
)
def test_wrong_input_is_told_by_the_name_of_the_option(home: Path, command: str, complaint: str) -> None:
    refused = typed(*command.split(), home=home)
    assert (refused.exit_code, refused.output) == (2, "")
    assert complaint in " ".join(refused.notes.replace("│", " ").split()), refused.notes


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("budgets create --limit 1 --time-zone Europe/Berln", "at --time-zone"),
        ("budgets create --limit 1 --tag team", "at --tag"),
        ("budgets create --limit 1 --name " + "x" * 101, "--name: "),
        ("budgets show bud_1", "'bud_1' does not exist"),
        ("spend --period 2026-13", "at --period"),
        ("spend --tag team", "at --tag"),
        ("alerts --budget bud_1", "'bud_1' does not exist"),
        ("prices set mock/small --input 1 --output 1 --tier turbo", "at --tier"),
        ("prices unset ovr_1", "'ovr_1' does not exist"),
        ("prices reverse rpr_1", "'rpr_1' does not exist"),
        ("estimate mock/smal --input-tokens 1", "-m llmlab.cli prices --contains NAME` looks"),
        ("estimate mock/small --input-tokens 1 --expected-output-tokens 9", "at --expected-output-tokens"),
        ("forecast", "two weeks"),
    ],
)
def test_what_a_service_refuses_is_told_the_same_way(home: Path, command: str, complaint: str) -> None:
    refused = typed(*command.split(), home=home)
    assert (refused.exit_code, refused.output) == (1, "")
    assert complaint in refused.notes


def test_a_budget_from_its_creation_to_its_end(home: Path) -> None:
    made = typed(
        *"budgets create --limit 0.0001 --period daily --time-zone Europe/Berlin --tag team=a".split(),
        *"--threshold 80 --threshold 40 --threshold 80".split(),
        home=home,
        columns=NARROW,
    )
    assert made.exit_code == 0, made.notes
    assert is_narrow(made)
    for expected in ("tag team=a daily", "Europe/Berlin", "alerts at 40, 80 %", "$0 of $0.0001"):
        assert expected in made.output
    assert "--tag team=a has no usage" in made.notes
    found = typed("budgets", "--tag", "team=a", "--json", home=home).json()
    budget_id = found[0]["budget_id"]
    assert budget_id in typed("budgets", home=home).output
    changed = typed(
        "budgets", "update", budget_id, "--limit", "2usd", "--soft", "--name", "team a", "--json", home=home
    )
    assert (changed.json()["limit_nano_usd"], changed.json()["name"]) == (2_000_000_000, "team a")
    assert "soft" in typed("budgets", "show", budget_id, home=home).output
    assert "No alerts of budget" in typed("alerts", "--budget", budget_id, home=home).notes
    assert typed("budgets", "delete", budget_id, "--json", home=home).json() == {"deleted": budget_id}
    assert typed("budgets", "show", budget_id, home=home).exit_code == 1


def test_a_run_that_a_budget_refuses_says_why_in_full(home: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("name: s\nprompts: [Hi]\nmodels: [mock/large]\nrepeats: 2\n")
    limit = ("--limit", "0.000000001", "--model", "mock/large", "--time-zone", "Europe/Berlin")
    budget_id = typed("budgets", "create", *limit, "--json", home=home).json()["budget_id"]
    try:
        refused = typed("run", str(study), home=home, columns=NARROW)
        results = typed("results", "latest", "--state", "failed", home=home, columns=NARROW)
        chat = typed("chat", "Hello", "--model", "mock/large", home=home)
    finally:
        typed("budgets", "delete", budget_id, home=home)
    assert refused.exit_code == 1
    assert "2 cells failed; see" in refused.notes
    assert "unknown" not in refused.notes
    assert is_narrow(results)
    for text in (refused.notes, results.notes, chat.notes):
        assert f"({budget_id}) for" in text
        assert "0 USD left of 0.000000001 USD" in text
        assert "begins anew at" in text
        assert "budgets update BUDGET --limit USD` raises" in text
        assert "Europe/Berlin" in text
    assert "BUDGET_EXCEEDED" in results.output


def test_an_end_that_is_told_again_changes_nothing(home: Path) -> None:
    rates = ("--input", "1", "--output", "2")
    override_id = typed("prices", "set", "mock/medium", *rates, "--json", home=home).json()["override_id"]
    assert override_id in typed("prices", "overrides", home=home, columns=NARROW).output
    first, again = (typed("prices", "unset", override_id, home=home) for _ in range(2))
    assert "had ended before" not in first.notes
    assert "had ended before" in again.notes
    applied = typed("prices", "reprice", "--model", "mock/medium", "--apply", "--json", home=home)
    repricing_id = applied.json()["repricing_id"]
    first, again = (typed("prices", "reverse", repricing_id, home=home) for _ in range(2))
    assert "taken back before" not in first.notes
    assert "taken back before" in again.notes
    assert "as priced anew" in typed("runs", home=home).notes


def test_providers_fit_a_narrow_screen(home: Path) -> None:
    shown = typed("providers", home=home, columns=NARROW)
    assert is_narrow(shown)
    assert "set ANTHROPIC_API_KEY" in shown.output
