"""The contracts' command: what it generates works, and what it checks fails when it should."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import protovalidate
import pytest
from google.protobuf import descriptor_pool

from llmlab.api import validate_rules
from llmlab.api.common.v1 import options_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from tools import proto
from tools.api_reference import render_reference
from tools.protoc import PROTOS, ROOT, ProtocError, build_image

EXAMPLE = """
// Things, for a test.
syntax = "proto3";

package llmlab.api.things.v1;

import "buf/validate/validate.proto";
import "google/api/annotations.proto";
import "llmlab/api/common/v1/options.proto";

// Keeps things.
service ThingService {
  // Gets a thing.
  rpc GetThing(GetThingRequest) returns (GetThingResponse) {
    option (google.api.http) = {get: "/v1/things/{id}"};
    option (llmlab.api.common.v1.permission) = PERMISSION_READ;
    option (llmlab.api.common.v1.idempotent) = true;
  }
}

// Asks for a thing.
message GetThingRequest {
  // Its id.
  string id = 1 [(buf.validate.field).string = {
    min_len: 1
    max_len: 64
  }];
}

// The thing.
message GetThingResponse {
  // Its parts | pieces, by name.
  map<string, Part> parts = 1 [(buf.validate.field).map = {
    max_pairs: 1000
    keys: {
      string: {min_len: 1}
    }
  }];
  // A part.
  message Part {
    // How big; in metres.
    optional double size_m = 1 [(buf.validate.field).double = {gt: 0}];
  }
}
"""


def write_protos(directory: Path) -> None:
    """A copy of the common contracts with one service more."""
    shutil.copytree(PROTOS / "llmlab" / "api" / "common", directory / "llmlab" / "api" / "common")
    things = directory / "llmlab" / "api" / "things" / "v1"
    things.mkdir(parents=True)
    (things / "things.proto").write_text(EXAMPLE)


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """Contracts without anything made from them."""
    write_protos(tmp_path)
    return tmp_path


def test_a_new_contract_is_generated_with_its_packages(protos: Path) -> None:
    files = proto.generated_code(protos)
    assert "llmlab/api/things/__init__.py" in files
    assert "llmlab/api/things/v1/__init__.py" in files
    assert "llmlab/api/things/v1/things_pb2_grpc.pyi" in files
    assert b"from llmlab.api import validate_rules as" in files["llmlab/api/things/v1/things_pb2.py"]
    assert [name for name, content in files.items() if b"import buf" in content or b"from buf" in content] == []
    # A contract without a service has no stubs.
    assert "llmlab/api/common/v1/options_pb2_grpc.py" not in files


def test_a_broken_contract_says_where(protos: Path) -> None:
    (protos / "llmlab" / "api" / "things" / "v1" / "things.proto").write_text('syntax = "proto3";\nmessage {')
    with pytest.raises(ProtocError, match=r"things\.proto:2:9"):
        proto.generated_code(protos)


def test_generated_messages_carry_their_rules() -> None:
    violations = protovalidate.collect_violations(gateway_pb2.Call(model="mock/small", timeout_ms=-1))
    rules = {violation.proto.rule_id for violation in violations}
    assert "int64.gte_lte" in rules


def test_rpcs_carry_their_permission_and_idempotency() -> None:
    service = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"]
    complete, list_models = (service.methods_by_name[name].GetOptions() for name in ("Complete", "ListModels"))
    assert complete.Extensions[options_pb2.permission] == options_pb2.PERMISSION_CALL
    assert not complete.Extensions[options_pb2.idempotent]
    assert list_models.Extensions[options_pb2.idempotent]


def test_registering_the_rules_twice_is_harmless() -> None:
    assert validate_rules._register() is not None
    assert descriptor_pool.Default().FindFileByName(validate_rules.DESCRIPTOR.name).package == "buf.validate"


def test_the_reference_tells_all_of_a_contract(protos: Path) -> None:
    pages = render_reference(build_image(protos))
    assert set(pages) == {"README.md", "common.md", "things.md"}
    assert "| [things](things.md) | `ThingService` | Things, for a test. |" in pages["README.md"]
    page = pages["things.md"]
    assert "[GetThingRequest](#getthingrequest) → [GetThingResponse](#getthingresponse)" in page
    assert "permission `PERMISSION_READ` · idempotent: clients may retry it · HTTP `GET /v1/things/{id}`" in page
    assert "| `id` | string | min_len 1; max_len 64 | Its id. |" in page
    assert "map of string to [GetThingResponse.Part](#getthingresponsepart)" in page
    assert "max_pairs 1,000; each of keys: min_len 1" in page
    assert "Its parts \\| pieces, by name." in page
    assert "| `size_m` | optional double | gt 0 | How big; in metres. |" in page


def take_for_the_repository(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the command work on `root` instead of on the real repository."""
    monkeypatch.setattr(proto, "ROOT", root)
    monkeypatch.setattr(proto, "PROTOS", root / "protos")
    monkeypatch.delenv(proto.BASE_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own that holds the contracts and what is made from them; tests work on copies of it."""
    root = tmp_path_factory.mktemp("generated")
    write_protos(root / "protos")
    with pytest.MonkeyPatch.context() as monkeypatch:
        take_for_the_repository(root, monkeypatch)
        proto.generate()
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--message", "First")
    return root


@pytest.fixture
def repository(generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the generated repository, which the command takes for the real one."""
    root = shutil.copytree(generated, tmp_path / "repository")
    take_for_the_repository(root, monkeypatch)
    return root


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


def edit(root: Path, old: str, new: str) -> None:
    path = root / "protos" / "llmlab" / "api" / "things" / "v1" / "things.proto"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_fresh_contracts_pass(repository: Path) -> None:
    assert repository.exists()
    assert proto.check() == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("// Its id.\n  string id", "string id", "lint"),
        ("message GetThingResponse {\n", "message GetThingResponse {\n\n\n", "format"),
        ("string id = 1", "string id = 2", "breaking changes"),
        ("// How big", "// How large", "freshness"),
    ],
)
def test_a_contract_that_is_not_right_is_found(repository: Path, old: str, new: str, finding: str) -> None:
    edit(repository, old, new)
    assert finding in [problem.partition(":")[0] for problem in proto.check()]


def test_generating_removes_what_no_contract_makes(repository: Path) -> None:
    stale = repository / "llmlab" / "api" / "things" / "v1" / "gone_pb2.py"
    stale.write_text("")
    assert "gone_pb2.py" in "".join(proto.check())
    proto.generate()
    assert not stale.exists()
    assert proto.check() == []


def test_an_unknown_base_commit_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert repository.exists()
    monkeypatch.setenv(proto.BASE_VARIABLE, "no-such-commit")
    with pytest.raises(ProtocError, match="LLMLAB_PROTO_BASE=no-such-commit"):
        proto.check()


def test_the_command_reports_by_its_exit_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.proto", "image", str(tmp_path / "image.binpb")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert (tmp_path / "image.binpb").stat().st_size > 0
