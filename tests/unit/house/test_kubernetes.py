"""The manifests of deploy/k8s, built and compared with the settings and the code; `make k8s-check` validates them."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, text

from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.states import CLAIMABLE
from services.runtime.health import LIVENESS, READINESS
from services.runtime.launch import COMMANDS
from services.runtime.service_database import open_service_database
from services.runtime.settings import DEFAULT_PORTS, ServiceSettings
from tools import kubernetes
from tools.env_example import settings_class

pytestmark = pytest.mark.skipif(kubernetes.builder() is None, reason="neither kubectl nor kustomize is installed")

ROOT = Path(__file__).resolve().parents[3]
OVERLAYS = kubernetes.overlays()
EXAMPLE_SECRETS = ROOT / "deploy" / "k8s" / "components" / "external" / "secrets.example.yaml"
PROCESSES = {**{service: service for service in DEFAULT_PORTS}, "worker": "orchestrator"}
SERVERS = {"postgres": 5432, "redis": 6379}
# After its grace period a server ends what is left within a second; the rest is for the machine.
MARGIN_S = 5

build = functools.cache(kubernetes.build)


def of_kind(overlay: str, kind: str) -> dict[str, Any]:
    """The resources of a kind, by name."""
    return {r["metadata"]["name"]: r for r in build(overlay) if r["kind"] == kind}


def processes(overlay: str) -> dict[str, dict[str, Any]]:
    """The pod templates of llmlab's own Deployments, by name."""
    found = of_kind(overlay, "Deployment")
    return {name: found[name]["spec"]["template"]["spec"] for name in PROCESSES}


def settings_in(overlay: str) -> dict[str, str]:
    """What the ConfigMap says."""
    ((_, found),) = ((n, c) for n, c in of_kind(overlay, "ConfigMap").items() if n.startswith("llmlab-settings"))
    data: dict[str, str] = found["data"]
    return data


def settings_of(overlay: str, service: str, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """The settings that a process reads there, without those from secrets and files."""
    for name, value in settings_in(overlay).items():
        if "_TLS_" not in name:
            monkeypatch.setenv(name, value)
    return settings_class(service)()


@pytest.mark.parametrize("overlay", OVERLAYS)
class TestEveryOverlay:
    def test_there_is_a_process_for_every_command(self, overlay: str) -> None:
        assert {name: pod["containers"][0]["args"] for name, pod in processes(overlay).items()} == {
            name: [name] for name in PROCESSES
        }
        assert set(PROCESSES) <= set(COMMANDS)
        assert of_kind(overlay, "Job")["migrate"]["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]

    def test_probes_ask_what_they_mean(self, overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, pod in processes(overlay).items():
            port = settings_of(overlay, PROCESSES[name], monkeypatch).health_port
            (container,) = pod["containers"]
            asked = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")}
            assert asked == {
                "startup": {"port": port, "service": LIVENESS},
                "readiness": {"port": port, "service": READINESS},
                "liveness": {"port": port, "service": LIVENESS},
            }

    def test_a_pod_gets_longer_than_its_process_takes_to_stop(
        self, overlay: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, pod in processes(overlay).items():
            settings = settings_of(overlay, PROCESSES[name], monkeypatch)
            takes_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] + settings.grace_s + MARGIN_S
            if name == "worker":
                assert isinstance(settings, OrchestratorSettings)
                takes_s += settings.drain_ms / 1_000
            assert pod["terminationGracePeriodSeconds"] >= takes_s, name
            # Connections are let go more patiently than processes: no call is cut for the age of its connection.
            assert settings.max_connection_age_grace_s >= settings.grace_s

    def test_ports_are_those_of_the_settings(self, overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
        services = of_kind(overlay, "Service")
        assert set(services) - set(SERVERS) == set(DEFAULT_PORTS)
        for name, port in DEFAULT_PORTS.items():
            settings = settings_of(overlay, name, monkeypatch)
            assert settings.port == port
            spec = services[name]["spec"]
            # Headless, or a client's calls would all go to one pod.
            assert spec["clusterIP"] == "None"
            assert [each["port"] for each in spec["ports"]] == [port]
            ports = {each["name"]: each["containerPort"] for each in processes(overlay)[name]["containers"][0]["ports"]}
            assert ports == {"grpc": port, "health": settings.health_port, "telemetry": settings.telemetry_port}
            for peer in ("gateway", "metrics", "cost", "identity"):
                assert getattr(settings, f"{peer}_target") == f"{peer}:{DEFAULT_PORTS[peer]}"

    def test_every_setting_exists(self, overlay: str) -> None:
        known = {
            f"LLMLAB_{prefix}{field.upper()}"
            for service in DEFAULT_PORTS
            for field in settings_class(service).model_fields
            for prefix in ("", f"{service.upper()}_")
        }
        assert set(settings_in(overlay)) - known == set()
        for pod in processes(overlay).values():
            assert {each["name"] for each in pod["containers"][0]["env"]} - known == set()

    def test_everything_that_is_referred_to_exists(self, overlay: str) -> None:
        present = {(kind, name) for kind in ("ConfigMap", "ServiceAccount") for name in of_kind(overlay, kind)}
        keys = {(name, key) for name, secret in of_kind(overlay, "Secret").items() for key in secret_keys(secret)}
        if not keys:
            documents = yaml.safe_load_all(EXAMPLE_SECRETS.read_text(encoding="utf-8"))
            keys = {(each["metadata"]["name"], key) for each in documents for key in secret_keys(each)}
        for name, pod in pods(overlay).items():
            if name not in SERVERS:
                assert ("ServiceAccount", pod["serviceAccountName"]) in present
            (container,) = pod["containers"]
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in present, name
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or (reference["name"], reference["key"]) in keys, name
            mounted = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
            assert mounted <= {secret for secret, _ in keys}, name

    def test_every_pod_meets_the_restricted_standard(self, overlay: str) -> None:
        for name, pod in pods(overlay).items():
            assert pod["automountServiceAccountToken"] is False, name
            assert pod["securityContext"]["runAsNonRoot"], name
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            (container,) = pod["containers"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            # Memory is bounded; CPU is not, or a pod would be throttled while its machine idles.
            assert container["resources"]["limits"].keys() == {"memory"}, name
            assert container["resources"]["requests"].keys() == {"memory", "cpu"}, name

    def test_pods_are_spread_and_not_evicted_at_once(self, overlay: str) -> None:
        budgets = of_kind(overlay, "PodDisruptionBudget")
        for name, pod in processes(overlay).items():
            assert budgets[name]["spec"]["maxUnavailable"] == 1
            assert {each["topologyKey"] for each in pod["topologySpreadConstraints"]} == {
                "kubernetes.io/hostname",
                "topology.kubernetes.io/zone",
            }

    def test_network_policies_are_the_calls_that_the_code_makes(self, overlay: str) -> None:
        expected = calls_in_code()
        assert allowed(overlay, "egress") == expected
        if "postgres" in of_kind(overlay, "Service"):
            assert allowed(overlay, "ingress") == expected
        else:
            assert allowed(overlay, "ingress") == {call for call in expected if call[1] not in SERVERS}
        deny = of_kind(overlay, "NetworkPolicy")["default-deny"]["spec"]
        assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """All pod templates, by name."""
    kinds = ("Deployment", "StatefulSet", "Job")
    return {name: r["spec"]["template"]["spec"] for kind in kinds for name, r in of_kind(overlay, kind).items()}


def secret_keys(secret: dict[str, Any]) -> set[str]:
    return {*secret.get("data", {}), *secret.get("stringData", {})}


def calls_in_code() -> set[tuple[str, str]]:
    """Who calls whom: settings of peers, Redis and databases that the code of each service reads."""
    calls = {("migrate", "postgres")}
    for name, service in PROCESSES.items():
        for path in (ROOT / "services" / service).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and (found := re.fullmatch(r"(\w+)_target", node.attr)):
                    calls.add((name, found[1]))
                elif isinstance(node, ast.Attribute) and node.attr == "redis_url":
                    calls.add((name, "redis"))
                elif isinstance(node, ast.Name) and node.id == "open_service_database":
                    calls.add((name, "postgres"))
    return calls


def ports_of_telemetry(overlay: str) -> set[int]:
    """Where Prometheus reads, and the collector's where one is configured."""
    settings = settings_in(overlay)
    endpoint = settings.get("LLMLAB_TRACE_ENDPOINT", "")
    assert bool(endpoint) == ("tracing" in of_kind(overlay, "NetworkPolicy")), "a way to the collector, if there is one"
    return {int(settings["LLMLAB_TELEMETRY_PORT"]), *(int(port) for port in re.findall(r":(\d+)$", endpoint))}


def allowed(overlay: str, direction: str) -> set[tuple[str, str]]:
    """Who may call whom, by one side of the network policies."""
    ports = {port: name for name, port in {**DEFAULT_PORTS, **SERVERS}.items()}
    calls: set[tuple[str, str]] = set()
    for policy in of_kind(overlay, "NetworkPolicy").values():
        owners = selected(policy["spec"]["podSelector"])
        for rule in policy["spec"].get(direction, []):
            for port in rule["ports"]:
                target = ports.get(port["port"])
                if target is None:
                    assert port["port"] in {53, 443, *ports_of_telemetry(overlay)}
                elif direction == "egress":
                    calls |= {(owner, target) for owner in owners}
                    named = {n for peer in rule["to"] for n in selected(peer.get("podSelector", {}))}
                    assert named <= {target}
                else:
                    assert owners == {target}
                    peers = {n for peer in rule["from"] for n in selected(peer.get("podSelector", {}))}
                    calls |= {(peer, target) for peer in peers}
    return calls


def selected(selector: dict[str, Any]) -> set[str]:
    """The pods that a selector means, by name."""
    label = "app.kubernetes.io/name"
    names = {value for key, value in selector.get("matchLabels", {}).items() if key == label}
    for expression in selector.get("matchExpressions", []):
        assert (expression["key"], expression["operator"]) == (label, "In")
        names |= set(expression["values"])
    return names


async def test_workers_are_scaled_by_what_unfinished_runs_want(postgresql_url: str) -> None:
    trigger = of_kind("prod", "ScaledObject")["worker"]["spec"]["triggers"][0]["metadata"]
    assert int(trigger["targetQueryValue"]) * 2 == OrchestratorSettings().worker_slots
    assert re.findall(r"'(\w+)'", trigger["query"]) == sorted(CLAIMABLE)
    async with open_service_database(OrchestratorSettings(database_url=postgresql_url)) as database:
        engine = create_engine(database.url)
        with engine.connect() as connection:
            assert connection.execute(text(trigger["query"])).scalar_one() == 0
        engine.dispose()


@pytest.mark.parametrize("overlay", ["prod", "prod-hpa"])
def test_what_an_autoscaler_owns_has_no_number_of_its_own(overlay: str) -> None:
    scalers = {**of_kind(overlay, "ScaledObject"), **of_kind(overlay, "HorizontalPodAutoscaler")}
    assert {"gateway", "worker"} <= set(scalers)
    for name in scalers:
        assert "replicas" not in of_kind(overlay, "Deployment")[name]["spec"]
