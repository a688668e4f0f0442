"""The command that migrates every service's schema."""

from __future__ import annotations

import pytest

from services.runtime.migrate_services import main

WITH_A_DATABASE = {"cost", "identity", "orchestrator"}


def migrated(output: str) -> set[str]:
    return {line.partition(":")[0] for line in output.splitlines()}


def test_every_service_is_migrated_and_again(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if fresh_database_url.startswith("sqlite"):
        # One file for each service, in the home.
        monkeypatch.setenv("LLMLAB_HOME", fresh_database_url.removeprefix("sqlite:///").removesuffix("/test.db"))
    else:
        monkeypatch.setenv("LLMLAB_DATABASE_URL", fresh_database_url)
    for _ in range(2):
        assert main() == 0
        assert migrated(capsys.readouterr().out) == WITH_A_DATABASE


def test_a_useless_url_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMLAB_DATABASE_URL", "oracle://nowhere")
    assert main() == 1
    assert "LLMLAB_DATABASE_URL" in capsys.readouterr().err
