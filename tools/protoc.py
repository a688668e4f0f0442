"""Runs protoc over `protos/`: one place that knows where imported descriptors come from.

`buf/validate/validate.proto` is not a file on any machine: the `protovalidate` package ships its descriptor only, which
is handed to protoc with `--descriptor_set_in`. `google/api` and `google/rpc` are .proto files of
`googleapis-common-protos`, and the well-known types are files of `grpcio-tools`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc as grpc_protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"

# What buf adds to a FileDescriptorProto to say "only imported": field 8042 (buf.alpha.image.v1.ImageFileExtension) with
# its field 1 (is_import) set to true. As bytes, because no package ships that descriptor.
_BUF_IS_IMPORT = b"\xd2\xf6\x03\x02\x08\x01"


class ProtocError(RuntimeError):
    """protoc refused the files; the message holds what it printed."""


def proto_files(protos: Path) -> list[str]:
    """Every contract under `protos`, as protoc wants it named: relative, in a stable order."""
    return sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))


def package_directory(package: str) -> Path:
    """The directory of an installed (namespace) package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ProtocError(f"the package {package} is not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def include_directories(protos: Path) -> list[Path]:
    """Where protoc looks for files: ours, Google's API annotations, the well-known types."""
    google_api = package_directory("google.api").parent.parent
    well_known = package_directory("grpc_tools") / "_proto"
    return [protos, google_api, well_known]


def validation_rules_descriptor() -> bytes:
    """The serialized FileDescriptorProto of `buf/validate/validate.proto`."""
    return validate_pb.desc().proto.to_binary()


def run_protoc(protos: Path, arguments: list[str]) -> None:
    """Runs protoc over all contracts in `protos` with the given output arguments.

    Raises:
        ProtocError: with what protoc printed, when it fails.
    """
    with _validation_rules_file() as rules:
        command = ["protoc", f"--descriptor_set_in={rules}"]
        command += [f"--proto_path={directory}" for directory in include_directories(protos)]
        command += [*arguments, *proto_files(protos)]
        with _scripts_on_path(), _captured_stderr() as printed:
            status = grpc_protoc.main(command)
        if status != 0:
            raise ProtocError(printed.getvalue().strip() or f"protoc ended with status {status}")


def build_image(protos: Path) -> bytes:
    """Compiles the contracts into one serialized FileDescriptorSet, with comments; imports are in it and marked."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "image.binpb"
        run_protoc(protos, ["--include_imports", "--include_source_info", f"--descriptor_set_out={output}"])
        image = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    own = set(proto_files(protos))
    for file in image.file:
        if file.name not in own:
            file.MergeFromString(_BUF_IS_IMPORT)
    return image.SerializeToString(deterministic=True)


@contextlib.contextmanager
def _validation_rules_file() -> Iterator[Path]:
    """A descriptor set that holds the validation rules; protoc finds what they import in the include directories."""
    rules = descriptor_pb2.FileDescriptorProto.FromString(validation_rules_descriptor())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rules.binpb"
        path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[rules]).SerializeToString())
        yield path


@contextlib.contextmanager
def _scripts_on_path() -> Iterator[None]:
    """Lets protoc find its plugins on the PATH: they live beside this interpreter."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


@contextlib.contextmanager
def _captured_stderr() -> Iterator[io.StringIO]:
    """What protoc prints: it is C++ code that writes to the descriptor, not to `sys.stderr`."""
    printed = io.StringIO()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            printed.write(file.read().decode(errors="replace"))


def buf_binary() -> str:
    """The `buf` that is installed beside this interpreter, or the one on the PATH."""
    beside = Path(sys.executable).parent / "buf"
    found = str(beside) if beside.exists() else shutil.which("buf")
    if found is None:
        raise ProtocError("buf is not installed: run `make setup`")
    return found
