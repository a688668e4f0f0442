"""How the client finds running services and a key."""

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from llmlab.client import DEFAULT_PORTS, SERVICES, Endpoints, find_credentials


@pytest.fixture
def listener() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def publish(home: Path, identity: str) -> Endpoints:
    targets = {name: f"127.0.0.1:{port}" for name, port in DEFAULT_PORTS.items()} | {"identity": identity}
    (home / "endpoints.json").write_text(json.dumps({"process": 1, "targets": targets}))
    (home / "credentials.json").write_text(json.dumps({"api_key": "llmlab_from_file"}))
    return Endpoints(**targets)


def test_nothing_is_found_in_an_empty_home(tmp_path: Path) -> None:
    assert find_credentials(tmp_path, {}) == (None, None)


def test_a_running_server_and_its_key_are_found_by_themselves(tmp_path: Path, listener: str) -> None:
    assert find_credentials(tmp_path, {}) == (None, None)
    published = publish(tmp_path, listener)
    assert find_credentials(tmp_path, {}) == (published, "llmlab_from_file")


def test_services_with_a_home_of_their_own_are_opened_by_its_key(tmp_path: Path, listener: str) -> None:
    published = publish(tmp_path, listener)
    services_home = tmp_path / "services"
    services_home.mkdir()
    (services_home / "credentials.json").write_text(json.dumps({"api_key": "llmlab_of_services"}))
    content = {"targets": asdict(published), "home": str(services_home)}
    (tmp_path / "endpoints.json").write_text(json.dumps(content))
    assert find_credentials(tmp_path, {}) == (published, "llmlab_of_services")
    assert find_credentials(tmp_path, {"LLMLAB_API_KEY": "llmlab_given"}) == (published, "llmlab_given")


def test_the_file_of_a_killed_server_is_not_believed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"127.0.0.1:{server.getsockname()[1]}"
    publish(tmp_path, gone)
    assert find_credentials(tmp_path, {}) == (None, "llmlab_from_file")


def test_the_environment_comes_first(tmp_path: Path, listener: str) -> None:
    publish(tmp_path, listener)
    environ = {"LLMLAB_API_KEY": "llmlab_from_environment", "LLMLAB_GATEWAY_TARGET": "gateway:1"}
    assert find_credentials(tmp_path, environ) == (Endpoints(gateway="gateway:1"), "llmlab_from_environment")


@pytest.mark.parametrize("content", ["", "not JSON", "[]", '{"targets": 5}', '{"targets": {"identity": "x:1"}}'])
def test_damaged_files_are_as_absent(tmp_path: Path, content: str) -> None:
    for name in ("endpoints.json", "credentials.json"):
        (tmp_path / name).write_text(content)
    assert find_credentials(tmp_path, {}) == (None, None)


@pytest.mark.parametrize("target", ["nonsense", "127.0.0.1:port", "127.0.0.1:99999"])
def test_a_published_target_that_is_none_is_as_absent(tmp_path: Path, target: str) -> None:
    publish(tmp_path, target)
    assert find_credentials(tmp_path, {})[0] is None


def test_every_service_has_a_port_and_a_target() -> None:
    assert set(SERVICES) == set(DEFAULT_PORTS)
    for name in SERVICES:
        assert getattr(Endpoints(), name) == f"127.0.0.1:{DEFAULT_PORTS[name]}"
