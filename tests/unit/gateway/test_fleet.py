"""Catalogues that are replaced under calls that go on, and the file that they are read from."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from services.gateway.catalogue import Catalogue, ConfiguredProvider, load_catalogue
from services.gateway.catalogue_watch import CatalogueWatch
from services.gateway.failures import CallFailed
from services.gateway.fleet import Fleet
from services.gateway.providers.port import Provider
from tests.support.gateway import ScriptedProvider


class Garage:
    """Opens providers that say whether they are closed."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, CloseableProvider]] = []

    async def open(self, configured: ConfiguredProvider) -> Provider:
        provider = CloseableProvider()
        self.opened.append((f"{configured.entry.name} {configured.base_url}".strip(), provider))
        return provider


class CloseableProvider(ScriptedProvider):
    is_closed = False

    async def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


def write(file: Path, *, kind: str = "openai", url: str = "http://one", model: str = "a") -> None:
    file.write_text(f"providers:\n- name: own\n  kind: {kind}\n  base_url: {url}\n  models: [{{name: {model}}}]\n")


def put_in_place_of(file: Path, *, model: str) -> None:
    """Another file under the same name, as Kubernetes does, with the same time and size."""
    other = file.with_suffix(".new")
    write(other, model=model)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "own.yaml"
    write(file)
    return file


async def test_a_provider_that_did_not_change_is_kept_and_one_that_did_is_closed_after_its_calls(file: Path) -> None:
    garage = Garage()
    fleet = Fleet(garage.open)
    await fleet.replace(load_catalogue({}, file))
    assert [name for name, _ in garage.opened] == ["mock", "own http://one"]
    with fleet.lease() as first:
        write(file, model="b")
        await fleet.replace(load_catalogue({}, file))
        assert len(garage.opened) == 2
        with fleet.lease() as second:
            assert second.providers == first.providers
            assert second.catalogue.route("own/b").places == "own/b"
            with pytest.raises(CallFailed):
                second.catalogue.route("own/a")
            assert first.catalogue.route("own/a").places == "own/a"
        write(file, url="http://two")
        await fleet.replace(load_catalogue({}, file))
        old, new = garage.opened[1][1], garage.opened[2][1]
        await asyncio.sleep(0)
        # The first call may still use it, two catalogues later.
        assert not old.is_closed
    await fleet.close()
    assert (old.is_closed, new.is_closed, garage.opened[0][1].is_closed) == (True, True, True)


async def test_where_a_provider_cannot_be_opened_nothing_changes(file: Path) -> None:
    opened: list[CloseableProvider] = []

    async def open_but_last(configured: ConfiguredProvider) -> Provider:
        if configured.entry.name == "own":
            raise ValueError("no such scheme")
        opened.append(CloseableProvider())
        return opened[-1]

    fleet = Fleet(open_but_last)
    with pytest.raises(ValueError, match="scheme"):
        await fleet.replace(load_catalogue({}, file))
    assert [provider.is_closed for provider in opened] == [True]
    assert fleet.catalogue.providers == []


async def test_a_file_that_is_wrong_is_refused_with_one_line_and_the_old_one_stays(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "services.gateway.catalogue_watch")
    fleet = Fleet(Garage().open)
    watch = CatalogueWatch(fleet, lambda: load_catalogue({}, file), file)
    assert await watch.reload()
    write(file, kind="telepathy")
    assert not await watch.reload()
    assert fleet.catalogue.route("own/a").places == "own/a"
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert f"{file}:3: providers[0].kind" in caplog.text
    await asyncio.to_thread(file.unlink)
    assert not await watch.reload()
    write(file, model="b")
    assert await watch.reload()
    assert fleet.catalogue.route("own/b").places == "own/b"


class TellingFleet(Fleet):
    """Says which model of the provider `own` each catalogue has."""

    def __init__(self) -> None:
        super().__init__(Garage().open)
        self.models = asyncio.Queue[str]()

    async def replace(self, catalogue: Catalogue) -> None:
        self.models.put_nowait(catalogue.models("own")[0].name)


async def test_a_change_of_the_file_is_found_and_a_signal_is_followed_without_one(file: Path) -> None:
    fleet = TellingFleet()
    watch = CatalogueWatch(fleet, lambda: load_catalogue({}, file), file)
    async with watch.running(every_s=0.001), asyncio.timeout(20):
        write(file, model="b")
        assert await fleet.models.get() == "own/b"
        put_in_place_of(file, model="c")
        assert await fleet.models.get() == "own/c"
        watch.now()
        assert await fleet.models.get() == "own/c"
