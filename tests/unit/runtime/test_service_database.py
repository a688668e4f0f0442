"""Where a service's database is, by its settings."""

import stat
from pathlib import Path

import pytest

from services.identity.settings import IdentitySettings
from services.runtime.service_database import database_url, open_service_database
from services.runtime.settings import SettingsError


async def test_without_a_url_it_is_a_file_in_the_home(tmp_path: Path) -> None:
    home = tmp_path / "a home? 100%"
    settings = IdentitySettings(home=home)
    async with open_service_database(settings) as database:
        await database.check()
    assert stat.S_IMODE((home / "identity.db").stat().st_mode) == 0o600


def test_a_url_is_taken_as_it_is() -> None:
    settings = IdentitySettings(database_url="postgresql://db/llmlab")
    assert database_url(settings) == "postgresql://db/llmlab"


async def test_a_useless_url_names_the_setting_and_hides_the_password() -> None:
    settings = IdentitySettings(database_url="mysql://user:secret@db/llmlab")
    with pytest.raises(SettingsError, match="LLMLAB_IDENTITY_DATABASE_URL") as caught:
        async with open_service_database(settings):
            pass
    assert "secret" not in str(caught.value)


async def test_a_home_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="LLMLAB_IDENTITY_HOME"):
        async with open_service_database(IdentitySettings(home=tmp_path / "file" / "home")):
            pass
