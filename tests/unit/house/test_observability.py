"""Rules and dashboards of deploy/observability name series that the services have."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
OBSERVABILITY = ROOT / "deploy" / "observability"
RULES = OBSERVABILITY / "prometheus" / "rules.yml"
FORMS = {
    "counter": ("_total",),
    "level": ("",),
    "gauge": ("",),
    "gauges": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def series_in_code() -> dict[str, set[str]]:
    """What services count, under the names that Prometheus sees, with their labels."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "telemetry"
                and node.func.attr in FORMS
            ):
                (name, *_) = node.args
                assert isinstance(name, ast.Constant), path
                assert isinstance(name.value, str), path
                for form in FORMS[node.func.attr]:
                    labels = {keyword.arg for keyword in node.keywords if keyword.arg}
                    found.setdefault(f"llmlab_{name.value}{form}", set()).update(labels)
    return found


def expressions() -> list[str]:
    """Of all rules and panels."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for path in (OBSERVABILITY / "grafana" / "dashboards").glob("*.json"):
        panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
        found += [target["expr"] for panel in panels for target in panel["targets"]]
    return found


def test_every_series_that_is_named_exists() -> None:
    known = series_in_code()
    for expression in expressions():
        for name, selector in re.findall(r"(llmlab_\w+)(\{[^}]*\})?", expression):
            assert name in known, expression
            assert set(re.findall(r"(\w+)[!=]~?=?\"", selector)) - {"instance", "job"} <= known[name], expression


def test_every_alert_has_its_page_a_severity_and_a_test() -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}
    assert {rule["labels"]["severity"] for rule in alerts.values()} <= {"critical", "warning", "info"}
    explained = re.findall(
        r"^\| `(\w+)` \|", (ROOT / "docs" / "operations.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(alerts) <= set(explained)
    tests = yaml.safe_load((RULES.parent / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    for test in tests:
        assert {each["alertname"] for each in test["alert_rule_test"]} == set(alerts)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_the_rules_fire_when_they_should() -> None:
    command = ["promtool", "test", "rules", str(RULES.parent / "rules_test.yml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed (Debian: prometheus-alertmanager)")
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=ErrorRate", "severity=critical"), "pager"),
        (("alertname=LoopLag", "severity=warning"), "tickets"),
        (("alertname=BudgetThreshold", "severity=info"), "budget-owners"),
    ],
)
def test_alerts_go_where_they_should(labels: tuple[str, ...], receiver: str) -> None:
    file = OBSERVABILITY / "alertmanager" / "alertmanager.yml"
    command = ["amtool", "config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receiver}", *labels]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
