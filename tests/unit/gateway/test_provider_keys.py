"""Keys of providers in variables and files: found, followed, and told to nobody."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from services.gateway.catalogue import Catalogue, ConfiguredProvider, load_catalogue
from services.gateway.catalogue_file import CatalogueError
from services.gateway.catalogue_watch import CatalogueWatch
from services.gateway.fleet import Fleet
from services.gateway.provider_keys import KEY_FILE_MAX_BYTES, ProviderKey, find_key
from services.gateway.providers.mock import MockProvider
from services.gateway.providers.port import Provider

SECRET = "sk-very-secret"
NAMES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{SECRET}\n")
    return path


def test_the_first_variable_that_is_set_holds_the_key_or_names_its_file(file: Path) -> None:
    assert find_key(NAMES, {}) == ProviderKey()
    assert find_key(NAMES, {"GOOGLE_API_KEY": " k\n"}) == ProviderKey("k", "GOOGLE_API_KEY")
    environ = {"GEMINI_API_KEY_FILE": str(file), "GOOGLE_API_KEY": "k"}
    assert find_key(NAMES, environ) == ProviderKey(SECRET, "GEMINI_API_KEY_FILE", file)
    assert find_key(NAMES, environ | {"GEMINI_API_KEY": "own"}).value == "own"


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_file_is_named_as_what_is_missing(file: Path, content: str) -> None:
    file.write_text(content)
    (google,) = [one for one in load_catalogue(environ_of(file)).providers if one.entry.name == "google"]
    assert google.missing_setting == "GEMINI_API_KEY_FILE"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"{SECRET}\nsecond line", "more than one line"),
        (f"{SECRET}\u00e9", "no header can carry"),
        (SECRET * KEY_FILE_MAX_BYTES, "larger than 65536 bytes"),
        (None, "No such file"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(file: Path, content: str | None, problem: str) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(CatalogueError, match=problem) as error:
        load_catalogue(environ_of(file))
    assert str(error.value).startswith("GEMINI_API_KEY_FILE: ")
    assert SECRET not in str(error.value)


def environ_of(file: Path) -> dict[str, str]:
    return {"GEMINI_API_KEY_FILE": str(file)}


def test_a_key_is_in_no_representation(file: Path) -> None:
    assert SECRET not in repr(find_key(NAMES, environ_of(file)))
    assert SECRET not in repr(load_catalogue(environ_of(file)).providers)


class Opening(Fleet):
    """Tells the keys that providers are opened with."""

    def __init__(self) -> None:
        super().__init__(self._open)
        self.keys = asyncio.Queue[str]()

    async def _open(self, configured: ConfiguredProvider) -> Provider:
        if configured.entry.name == "google":
            self.keys.put_nowait(configured.api_key)
        return MockProvider()


async def test_a_changed_key_is_put_into_force_and_a_bad_one_is_told_once(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "services.gateway.catalogue_watch")
    environ = environ_of(file)
    fleet = Opening()
    loop, refused = asyncio.get_running_loop(), asyncio.Event()

    def load() -> Catalogue:
        try:
            return load_catalogue(environ)
        except CatalogueError:
            loop.call_soon_threadsafe(refused.set)
            raise

    watch = CatalogueWatch(fleet, load, None, environ)
    await fleet.replace(load_catalogue(environ))
    assert fleet.keys.get_nowait() == SECRET
    async with watch.running(every_s=0.001), asyncio.timeout(20):
        # As Kubernetes does it: another file takes the place of this one.
        put_in_place(tmp_path, file, "sk-second")
        assert await fleet.keys.get() == "sk-second"
        put_in_place(tmp_path, file, "two\nlines")
        await refused.wait()
        put_in_place(tmp_path, file, "sk-third")
        assert await fleet.keys.get() == "sk-third"
    await fleet.close()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert "sk-" not in caplog.text


def put_in_place(folder: Path, file: Path, key: str) -> None:
    new = folder / "new"
    new.write_text(key)
    new.rename(file)
