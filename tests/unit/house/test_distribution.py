"""What people install holds what the repository holds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tools.lock import places_in

ROOT = Path(__file__).resolve().parents[3]
TREES = ("llmlab", "services")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel, built from a copy of the tree with the build backend of this environment: nothing is fetched."""
    source = tmp_path_factory.mktemp("source")
    for tree in TREES:
        shutil.copytree(ROOT / tree, source / tree, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    output = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([sys.executable, "-c", build, str(output)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = output.iterdir()
    return zipfile.Path(path)


def test_the_wheel_holds_every_file_of_both_trees(wheel: zipfile.Path) -> None:
    packed = {name for name in wheel.root.namelist() if name.partition("/")[0] in TREES and not name.endswith("/")}
    present = {
        path.relative_to(ROOT).as_posix()
        for tree in TREES
        for path in (ROOT / tree).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == present


def test_the_wheel_keeps_services_open_to_other_wheels(wheel: zipfile.Path) -> None:
    assert not (wheel / "services" / "__init__.py").exists()


def test_the_wheel_brings_the_command(wheel: zipfile.Path) -> None:
    (metadata,) = (entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info"))
    assert "llmlab = llmlab.cli.main:main" in (metadata / "entry_points.txt").read_text()


def test_the_generated_code_is_not_newer_than_the_oldest_runtime_allowed(project: dict[str, Any]) -> None:
    requirements = {re.split(r"[><=!]", text)[0]: text for text in project["project"]["dependencies"]}
    stamps = {
        "protobuf": ("*_pb2.py", r"^# Protobuf Python Version: ([\d.]+)$"),
        "grpcio": ("*_pb2_grpc.py", r"^GRPC_GENERATED_VERSION = '([\d.]+)'$"),
    }
    for package, (files, stamp) in stamps.items():
        (oldest,) = re.findall(r">=([\d.]+)", requirements[package])
        texts = [path.read_text(encoding="utf-8") for path in (ROOT / "llmlab" / "api").rglob(files)]
        generated = [_version(version) for text in texts for version in re.findall(stamp, text, re.MULTILINE)]
        assert len(generated) == len(texts) > 0
        assert max(generated) <= _version(oldest)


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_the_requirements_are_hashed_and_name_no_place() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert places_in(text) == []
    pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pinned
    assert [line for line in pinned if not re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+ (;.* )?\\$", line)] == []


def test_a_place_in_the_requirements_is_found() -> None:
    text = "# make lock\nalpha==1 \\\n--find-links /opt\nbeta @ file:///wheels/beta.whl\n"
    assert places_in(text) == ["--find-links /opt", "beta @ file:///wheels/beta.whl"]


def test_the_requirements_hold_every_dependency(project: dict[str, Any]) -> None:
    declared = [*project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        declared += extra
    names = {re.split(r"[\[><=!;]", text)[0].strip().lower() for text in declared}
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==", text, re.MULTILINE))
    assert names - locked == set()
