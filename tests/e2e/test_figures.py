"""What the running services tell Prometheus, against what rules and dashboards ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.request import urlopen

import yaml

from tests.support.command import ROOT, typed

OBSERVABILITY = ROOT / "deploy" / "observability"

STUDY = """
name: figures
prompts: ["Say {{word}}."]
dataset: {rows: [{word: one}, {word: two}]}
models: [mock/small]
"""

# What somebody who runs llmlab has to see, whatever the dashboards show of it.
NEEDED = (
    "rpcs_total rpc_ms queue_depth cells_open ranges_held ranges_taken_over_total workers_found_dead_total database_ms "
    "breakers_open breaker_refused_total limits_refused_total limit_used_share cache_hits_total holds_total "
    "settlements_total spend_nano_usd_total tokens_total ttft_ms loop_lag_ms resident_memory_bytes attempts_total "
    "alerts_total"
).split()


def named() -> set[str]:
    """The series that rules and panels name."""
    rules = yaml.safe_load((OBSERVABILITY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for path in (OBSERVABILITY / "grafana" / "dashboards").glob("*.json"):
        panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
        expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    return {name for expression in expressions for name in re.findall(r"llmlab_\w+", expression)}


def test_every_series_of_rules_and_dashboards_is_there(home: Path, telemetry_port: int, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    assert typed("run", str(study), "--json", home=home).exit_code == 0
    with urlopen(f"http://127.0.0.1:{telemetry_port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    told = {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}
    families = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert len(named()) > 20
    assert named() - told == set()
    assert {f"llmlab_{name}" for name in NEEDED} - families == set()
    assert 'llmlab_rpcs_total{code="OK",method="RunService/StartRun",service="orchestrator"}' in "\n".join(lines)
