"""The command alone: all services inside it, on SQLite."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from tests.support.command import llmlab


def test_the_demo_runs_and_runs_again(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    for _ in range(2):
        finished = llmlab("demo", home=home)
        assert finished.exit_code == 0, finished.notes
        assert "144/144" in finished.notes
        for expected in ("gateway", "identity", "SERVING", "mock/large", "quality", "total"):
            assert expected in finished.output, finished.output
    runs = llmlab("runs", "--json", home=home).json()
    assert [run["status"] for run in runs] == ["COMPLETED", "COMPLETED"]


def test_the_owners_key_is_made_once_and_readable_by_nobody_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert llmlab("status", home=home).exit_code == 0
    credentials = home / "credentials.json"
    first = json.loads(credentials.read_text())
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "service.key").stat().st_mode) == 0o600
    assert llmlab("status", home=home).exit_code == 0
    assert json.loads(credentials.read_text()) == first


def test_a_targetless_service_is_a_clear_error(tmp_path: Path) -> None:
    finished = llmlab("runs", home=tmp_path / "home", LLMLAB_GATEWAY_TARGET="127.0.0.1:9", LLMLAB_API_KEY="llmlab_x")
    assert finished.exit_code == 1
    assert "No service answers at" in finished.notes
    assert "Traceback" not in finished.notes
