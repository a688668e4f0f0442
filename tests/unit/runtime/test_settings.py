from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from services.runtime.settings import DEFAULT_PORTS, ServiceSettings, SettingsError, load_settings


class DeskSettings(ServiceSettings, service="cost"):
    drawers: int = Field(3, ge=1, description="How many drawers the desk has.")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in DeskSettings.model_fields:
        monkeypatch.delenv(f"LLMLAB_{field.upper()}", raising=False)
        monkeypatch.delenv(f"LLMLAB_COST_{field.upper()}", raising=False)


def test_each_service_has_its_port() -> None:
    assert DeskSettings().port == DEFAULT_PORTS["cost"]
    assert DeskSettings.model_fields["port"].default == DEFAULT_PORTS["cost"]
    assert ServiceSettings().port == 0
    assert len(set(DEFAULT_PORTS.values())) == len(DEFAULT_PORTS)


def test_the_service_s_own_variable_beats_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAB_DRAWERS", "5")
    assert DeskSettings().drawers == 5

    monkeypatch.setenv("LLMLAB_COST_DRAWERS", "7")
    assert DeskSettings().drawers == 7
    assert DeskSettings(drawers=9).drawers == 9


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAB_COST_DRAWERS", "")

    assert DeskSettings().drawers == 3


@pytest.mark.parametrize("variable", ["LLMLAB_DRAWERS", "LLMLAB_COST_DRAWERS"])
def test_a_bad_value_names_the_variable_that_holds_it(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "many")

    with pytest.raises(SettingsError, match=f"^{variable}: .*integer"):
        load_settings(DeskSettings)


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAB_COST_DRAWERS", "0")
    monkeypatch.setenv("LLMLAB_COST_PORT", "70000")

    with pytest.raises(SettingsError, match=r"LLMLAB_COST_PORT: .*; LLMLAB_COST_DRAWERS: ") as caught:
        load_settings(DeskSettings)
    assert "\n" not in str(caught.value)


def test_a_secret_is_never_shown() -> None:
    settings = DeskSettings(auth_service_key="ab" * 32)

    assert "abab" not in repr(settings)
    assert "abab" not in settings.model_dump_json()


def test_settings_do_not_change_and_take_no_unknown_names() -> None:
    with pytest.raises(ValidationError):
        setattr(DeskSettings(), "drawers", 4)  # noqa: B010 (a type checker knows that it cannot be set)
    with pytest.raises(SettingsError, match="LLMLAB_COST_SHELVES: "):
        load_settings(DeskSettings, shelves=1)


def test_every_setting_is_described() -> None:
    assert [name for name, field in DeskSettings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("host", "on_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.1.2.3", False),
        ("example.org", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, on_loopback: bool) -> None:
    assert DeskSettings(host=host).on_loopback is on_loopback


def test_the_home_directory_is_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert DeskSettings().home_directory == tmp_path / ".llmlab"
