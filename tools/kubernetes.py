"""Checks deploy/k8s: what `make k8s-check` runs.

It builds every overlay with `kubectl kustomize` (or `kustomize build`), validates the result strictly against the
schemas of the oldest Kubernetes that is supported and the newest that the validator knows, and scans its posture. Each
finding of the scan that stays is in EXPLAINED, with its reason. The two tools have an environment of their own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
OVERLAYS = ROOT / "deploy" / "k8s" / "overlays"
TOOLS = ROOT / ".venv-k8s" / "bin"
OLDEST = "1.30"

# Kinds that a controller in the cluster brings; no schema of Kubernetes knows them.
FOREIGN_KINDS = {"ScaledObject", "TriggerAuthentication"}

EXPLAINED = {
    "CKV_K8S_11": "no CPU limits: a pod would be throttled while its machine idles; requests divide a busy machine",
    "CKV_K8S_15": "IfNotPresent: tags are versions and never move, and a registry that is away stops no restart",
    "CKV_K8S_35": "secrets are settings, which come from the environment; nobody has a shell in these containers",
    "CKV_K8S_40": "PostgreSQL and Redis of the overlay dev run as the users that their images were made for",
    "CKV_K8S_43": "whoever publishes the image knows its digest: kustomize edit set image llmlab=NAME@DIGEST",
}
"""Findings of the scan that stay as they are: the check's id and why."""


def overlays() -> list[str]:
    """The names of all overlays."""
    return sorted(path.name for path in OVERLAYS.iterdir() if path.is_dir())


def builder() -> list[str] | None:
    """The command that builds a kustomization; None where none is installed."""
    for program, arguments in (("kubectl", ["kustomize"]), ("kustomize", ["build"])):
        found = shutil.which(program)
        if found:
            return [found, *arguments]
    return None


def build(overlay: str) -> list[dict[str, Any]]:
    """The resources of an overlay. Raises CalledProcessError, and SystemExit where nothing can build it."""
    command = builder()
    if command is None:
        raise SystemExit("kubectl or kustomize is missing: install one of them")
    built = subprocess.run([*command, str(OVERLAYS / overlay)], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return [resource for resource in yaml.safe_load_all(built.stdout) if resource]


def validate(file: Path, version: str) -> list[str]:
    """What the schemas of a version of Kubernetes refuse in a file; "" is the newest version."""
    command = [str(TOOLS / "kubernetes-validate"), "--strict", "--quiet", "--no-warn"]
    command += ["--kubernetes-version", version] if version else []
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)  # noqa: S603 (our command)
    problems = [line for line in done.stdout.splitlines() if line]
    return problems or ([done.stderr] if done.returncode else [])


def scan(file: Path) -> dict[str, list[str]]:
    """The failed checks of a file's posture: each check's id and name, with the resources that it is about."""
    command = [str(TOOLS / "checkov"), "--framework", "kubernetes", "--skip-download", "--compact", "--quiet"]
    command += ["--output", "json", "--file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our command)
    report = json.loads(done.stdout)
    failed: dict[str, list[str]] = {}
    for check in report["results"]["failed_checks"] if "results" in report else []:
        failed.setdefault(f"{check['check_id']} {check['check_name']}", []).append(check["resource"])
    return failed


def check(overlay: str, folder: Path) -> list[str]:
    """Everything that is wrong with an overlay."""
    resources = build(overlay)
    file = folder / f"{overlay}.yaml"
    file.write_text(yaml.safe_dump_all(resources), encoding="utf-8")
    known = folder / f"{overlay}-known.yaml"
    known.write_text(yaml.safe_dump_all(r for r in resources if r["kind"] not in FOREIGN_KINDS), encoding="utf-8")
    problems = [f"{overlay}: {problem}" for version in (OLDEST, "") for problem in validate(known, version)]
    for finding, where in scan(file).items():
        if finding.partition(" ")[0] not in EXPLAINED:
            problems.append(f"{overlay}: {finding}: {', '.join(sorted(where))}")
    print(f"{overlay}: {len(resources)} resources, {len(problems)} problems")
    return problems


def main() -> int:
    """Entry point; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        problems = [problem for overlay in overlays() for problem in check(overlay, Path(folder))]
    print(
        "\n".join(problems) or f"valid for Kubernetes {OLDEST} and the newest known; explained: {', '.join(EXPLAINED)}"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
