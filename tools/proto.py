"""The contracts' command: generates code and reference from `protos/`, and checks that all of it is right and fresh.

python -m tools.proto generate     formats the protos; writes llmlab/api and docs/api
python -m tools.proto check        lint, format, breaking changes, freshness; writes nothing
python -m tools.proto image FILE   writes the contracts as one descriptor set, for `buf curl --schema` and others
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from google.protobuf import descriptor_pb2

from tools.api_reference import render_reference
from tools.protoc import PROTOS, ROOT, ProtocError, buf_binary, build_image, proto_files, run_protoc

# A file's content by its path from the root of the repository.
Files = dict[str, bytes]

CODE_DIRECTORY = "llmlab/api"
REFERENCE_DIRECTORY = "docs/api"
BUF_CONFIG = ROOT / "buf.yaml"

# The commit to compare contracts with; without it: HEAD where the protos have uncommitted changes, else HEAD's parent.
BASE_VARIABLE = "LLMLAB_PROTO_BASE"

_FOREIGN_IMPORT = "from buf.validate import validate_pb2 as "
_OWN_IMPORT = "from llmlab.api import validate_rules as "


def generated_files(protos: Path) -> Files:
    """Everything that is made from the contracts: modules, stubs, types, packages' `__init__.py`, the API reference."""
    files = generated_code(protos)
    files |= {
        f"{REFERENCE_DIRECTORY}/{name}": text.encode() for name, text in render_reference(build_image(protos)).items()
    }
    return files


def generated_code(protos: Path) -> Files:
    """The Python side of the contracts, by path."""
    with tempfile.TemporaryDirectory() as directory:
        run_protoc(protos, [f"--{plugin}_out={directory}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")])
        output = Path(directory)
        files = {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*.py*")}
    image = descriptor_pb2.FileDescriptorSet.FromString(build_image(protos))
    without_service = {file.name.removesuffix(".proto") for file in image.file if not file.service}
    files = {name: content for name, content in files.items() if name.partition("_pb2_grpc.")[0] not in without_service}
    files = {name: _with_own_imports(content) for name, content in files.items()}
    return files | _package_files(protos)


def _with_own_imports(content: bytes) -> bytes:
    return content.replace(_FOREIGN_IMPORT.encode(), _OWN_IMPORT.encode())


def _package_files(protos: Path) -> Files:
    """An `__init__.py` for `llmlab.api` and for each package below it."""
    directories = {Path(name).parent for name in proto_files(protos)}
    packages = {CODE_DIRECTORY} | {
        package.as_posix()
        for directory in directories
        for package in (directory, *directory.parents)
        if package.as_posix().startswith(f"{CODE_DIRECTORY}/")
    }
    return {
        f"{package}/__init__.py": f'"""Generated from protos/{package} by `make proto`."""\n'.encode()
        for package in sorted(packages)
    }


def checked_in_files() -> Files:
    """What the repository holds in the places that `generated_files` describes; hand-written modules aside."""
    code = [
        path
        for path in (ROOT / CODE_DIRECTORY).rglob("*.py*")
        if path.suffix in {".py", ".pyi"} and ("_pb2" in path.name or path.name == "__init__.py")
    ]
    reference = list((ROOT / REFERENCE_DIRECTORY).rglob("*.md"))
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in code + reference}


def generate() -> list[str]:
    """Formats the protos and brings the generated files up to date; says what changed."""
    _run_buf(["format", "--write", str(PROTOS)])
    wanted, present = generated_files(PROTOS), checked_in_files()
    for name in sorted(present.keys() - wanted.keys()):
        (ROOT / name).unlink()
    changed = sorted(name for name, content in wanted.items() if present.get(name) != content)
    for name in changed:
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted[name])
    print(f"{len(wanted)} generated files, {len(changed)} changed, {len(present.keys() - wanted.keys())} removed")
    return []


def check() -> list[str]:
    """Runs every check of the contracts; returns what is wrong."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("lint", _lint),
        ("format", _format),
        ("breaking changes", _breaking),
        ("freshness", _freshness),
    ]
    problems = []
    for name, run in checks:
        problem = run()
        print(f"proto {name}: {'FAILED' if problem else 'ok'}")
        if problem:
            problems.append(f"{name}:\n{problem}")
    return problems


def _lint() -> str:
    return _buf_on_image("lint", [])


def _format() -> str:
    status, output = _run_buf(["format", "--diff", "--exit-code", str(PROTOS)])
    return f"{output}\nrun `make proto`, which formats the protos" if status else ""


def _breaking() -> str:
    base = _base_commit()
    with tempfile.TemporaryDirectory() as directory:
        protos = _protos_at(base, Path(directory)) if base else None
        if protos is None:
            print("  nothing to compare with: no earlier commit holds protos")
            return ""
        against = Path(directory) / "base.binpb"
        against.write_bytes(build_image(protos))
        return _buf_on_image("breaking", ["--against", str(against), "--exclude-imports"])


def _freshness() -> str:
    wanted, present = generated_files(PROTOS), checked_in_files()
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if not stale:
        return ""
    return "these files are not what the protos say; run `make proto` and commit them:\n  " + "\n  ".join(stale)


def _buf_on_image(command: str, arguments: list[str]) -> str:
    """Runs a buf command on the contracts' image; returns its findings, empty when there are none."""
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "image.binpb"
        image.write_bytes(build_image(PROTOS))
        status, output = _run_buf([command, str(image), "--config", str(BUF_CONFIG), *arguments])
    return output if status else ""


def _run_buf(arguments: list[str]) -> tuple[int, str]:
    """Runs buf; returns its exit status and all that it printed."""
    # The arguments are this module's own constants and paths.
    done = subprocess.run([buf_binary(), *arguments], capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: S603
    return done.returncode, (done.stdout + done.stderr).strip()


def _git(arguments: list[str]) -> bytes | None:
    """What git prints, or None where git or the commit is not there (a source archive, a shallow clone)."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, cwd=ROOT)  # noqa: S603, S607
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _base_commit() -> str | None:
    """The commit whose contracts the present ones must not break."""
    named = os.environ.get(BASE_VARIABLE)
    if named:
        return named
    uncommitted = _git(["status", "--porcelain", "--", "protos"])
    if uncommitted is None:
        return None
    return "HEAD" if uncommitted.strip() else "HEAD~1"


def _protos_at(commit: str, directory: Path) -> Path | None:
    """The protos of `commit`, unpacked below `directory`; None where it holds none."""
    archive = _git(["archive", "--format=tar", commit, "protos"])
    if archive is None:
        if os.environ.get(BASE_VARIABLE):
            raise ProtocError(f"{BASE_VARIABLE}={commit} is not a commit of this repository that holds protos")
        return None
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    return directory / "protos"


def _write_image(path: Path) -> list[str]:
    path.write_bytes(build_image(PROTOS))
    return []


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.proto", description="Generate from protos/, or check.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("generate", help="write llmlab/api and docs/api").set_defaults(run=lambda _: generate())
    commands.add_parser("check", help="lint, format, breaking changes, freshness").set_defaults(run=lambda _: check())
    image = commands.add_parser("image", help="write the contracts as one descriptor set")
    image.add_argument("path", type=Path)
    image.set_defaults(run=lambda parsed: _write_image(parsed.path))
    parsed = parser.parse_args(arguments)
    try:
        problems = parsed.run(parsed)
    except ProtocError as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
