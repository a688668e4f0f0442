"""Identity's settings: the limits that protect, and the seeds of an operator."""

import pytest

from services.identity.settings import IdentitySettings
from services.runtime.settings import SettingsError, load_settings


def test_the_defaults_are_those_of_the_documents() -> None:
    settings = IdentitySettings()
    assert settings.port == 7414
    assert settings.access_token_life_s == 15 * 60
    assert (settings.argon2_time_cost, settings.argon2_parallelism) == (2, 1)
    assert settings.argon2_memory_kib >= 19 * 1024
    assert settings.fixed_seeds == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LLMLAB_IDENTITY_ARGON2_MEMORY_KIB", "1024"),
        ("LLMLAB_IDENTITY_ARGON2_TIME_COST", "1"),
        ("LLMLAB_IDENTITY_ACCESS_TOKEN_LIFE_S", "3600"),
        ("LLMLAB_IDENTITY_SIGNING_SEEDS", "abc"),
        ("LLMLAB_IDENTITY_KEY_ENVIRONMENT", "my_env"),
    ],
)
def test_a_weak_or_malformed_setting_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        load_settings(IdentitySettings)


def test_seeds_are_read_in_order_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAB_IDENTITY_SIGNING_SEEDS", f"{'11' * 32}, {'22' * 32}")
    settings = load_settings(IdentitySettings)
    assert settings.fixed_seeds == [b"\x11" * 32, b"\x22" * 32]
    assert "1111" not in repr(settings)
