"""The rules of the house that import-linter cannot say; ARCHITECTURE.md tells why each holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ("cost", "gateway", "identity", "metrics", "orchestrator")
# The metrics service keeps nothing, and a call of the gateway lives as long as its RPC.
STATEFUL = tuple(service for service in SERVICES if service not in {"gateway", "metrics"})

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600

# Rooms of a service (modules or packages) that may import what is named; `runtime` may import any of these.
WIRE_ROOMS = {"rpc", "peers", "wiring"}
STORAGE_ROOMS = {"store", "migrations"}
# The mock's own server is the other end of a provider's wire, and receivers of webhooks are one of cost's.
SDK_ROOMS = {"gateway": {"providers", "mockserver"}, "cost": {"alerting"}}
SDKS = {"aiohttp", "anthropic", "openai"}

# Nouns of the product, which mechanism that every service shares does not know.
DOMAIN_NOUNS = {"budget", "cell", "completion", "dataset", "experiment", "ledger", "prompt", "score", "scorer", "spend"}

# Modules that are found by their name instead of by an import.
FOUND_BY_NAME = {"__init__", "__main__", "settings", "wiring", "main"}


def modules(*trees: str) -> list[Path]:
    """Every hand-written module below these directories."""
    paths = (path for tree in trees for path in (ROOT / tree).rglob("*.py"))
    return sorted(path for path in paths if "_pb2" not in path.name)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The full names that a module imports, at any depth, with their lines."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def room(path: Path, service: str) -> str:
    """The first part of a module's place inside its service: `store` for store.py and for store/runs.py."""
    return path.relative_to(ROOT / "services" / service).parts[0].removesuffix(".py")


def intruders(service: str, packages: set[str], rooms: set[str]) -> list[str]:
    """Imports of `packages` (or anything below them) outside of `rooms`."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(f"services/{service}")
        if room(path, service) not in rooms
        for name, line in imported(path)
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    ]


def test_services_is_a_namespace() -> None:
    # Two wheels that both hold services/__init__.py would overwrite each other.
    assert not (ROOT / "services" / "__init__.py").exists()


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_edges_of_a_service_touch_the_wire(service: str) -> None:
    packages = {"llmlab.api", "grpc", "grpc_health", "grpc_status", "google.protobuf", "google.rpc"}
    assert intruders(service, packages, WIRE_ROOMS) == []


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_store_touches_the_database_library(service: str) -> None:
    assert intruders(service, {"sqlalchemy", "alembic", "psycopg", "sqlite3"}, STORAGE_ROOMS) == []


@pytest.mark.parametrize("service", SERVICES)
def test_only_providers_touch_their_sdks(service: str) -> None:
    assert intruders(service, SDKS, SDK_ROOMS.get(service, set())) == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_its_rooms(service: str) -> None:
    wanted = {"__init__", "__main__", "settings", "wiring", "rpc"}
    if service in STATEFUL:
        wanted |= STORAGE_ROOMS
    present = {path.name.removesuffix(".py") for path in (ROOT / "services" / service).iterdir()}
    assert wanted - present == set()


def test_the_runtime_knows_no_domain_noun() -> None:
    named = [
        f"{path.relative_to(ROOT)}:{node.lineno} defines {node.name}"
        for path in modules("services/runtime")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and DOMAIN_NOUNS & set(_words(node.name))
    ]
    assert named == []


def _words(name: str) -> list[str]:
    spaced = "".join(f"_{letter}" if letter.isupper() else letter for letter in name)
    return [word.lower() for word in spaced.split("_") if word]


def test_functions_fit_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines"
        for path in modules("services", "llmlab", "tools", "bench")
        if "migrations" not in path.parts
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_files_have_one_subject() -> None:
    long = [
        f"{path.relative_to(ROOT)} has {lines} lines"
        for path in modules("services", "llmlab", "tools", "bench", "tests")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    ]
    assert long == []


def test_modules_and_their_packages_say_what_they_are_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules("services", "llmlab", "tools", "bench")
        if ast.get_docstring(parsed(path)) is None
    ]
    assert silent == []


def test_every_module_is_used() -> None:
    users = modules("services", "llmlab", "tools", "bench")
    used = {name for path in users for name, _ in imported(path)}
    used |= {name.rpartition(".")[0] for name in used}
    unused = [
        str(path.relative_to(ROOT))
        for path in modules("services", "llmlab")
        if path.stem not in FOUND_BY_NAME
        # A command of its own.
        and not path.read_text(encoding="utf-8").endswith("raise SystemExit(main())\n")
        and "migrations" not in path.parts
        # Generated modules import it.
        and path != ROOT / "llmlab" / "api" / "validate_rules.py"
        and ".".join(path.relative_to(ROOT).with_suffix("").parts) not in used
    ]
    assert unused == []


@pytest.mark.parametrize("tree", ["tests", "services"])
def test_no_init_file_shadows_a_namespace(tree: str) -> None:
    found = [path for path in (ROOT / tree).rglob("__init__.py") if tree == "tests"]
    assert found == []
    assert not (ROOT / tree / "__init__.py").exists()
