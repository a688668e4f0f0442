import json

from services.runtime.channel import service_config
from services.runtime.methods import Method, api_methods, describe_path


def test_every_rpc_of_the_contracts_declares_its_permission() -> None:
    assert [method.name for method in api_methods().values() if method.permission is None] == []
    assert len(api_methods()) > 20


def test_no_paid_call_is_repeated_by_the_channel() -> None:
    retried = json.loads(service_config(4))["methodConfig"][0]["name"]
    paths = {f"/{name['service']}/{name['method']}" for name in retried}

    assert "/llmlab.api.common.v1.ServerService/GetServerInfo" in paths
    assert not any(path.startswith("/llmlab.api.gateway.v1.GatewayService/Complete") for path in paths)
    assert not any(path.startswith("/llmlab.api.gateway.v1.GatewayService/StreamComplete") for path in paths)
    assert paths == {path for path, method in api_methods().items() if method.idempotent}


def test_one_attempt_means_no_retry_policy() -> None:
    assert json.loads(service_config(1))["methodConfig"] == []


def test_a_method_is_described_by_its_contract() -> None:
    watch = describe_path("/llmlab.api.orchestrator.v1.RunService/WatchRun")

    assert (watch.name, watch.permission, watch.streams_responses) == ("RunService/WatchRun", "READ", True)


def test_what_no_contract_knows_has_no_permission() -> None:
    assert describe_path("/llmlab.api.orchestrator.v1.RunService/Explode") == Method(
        "/llmlab.api.orchestrator.v1.RunService/Explode", permission=None
    )
    assert describe_path("/no.Such/Method").permission is None


def test_grpc_s_own_services_are_public() -> None:
    method = describe_path("/grpc.health.v1.Health/Check")

    assert (method.permission, method.infrastructure) == ("PUBLIC", True)
