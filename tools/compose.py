"""The containers of docker-compose.yml: what `make compose-up`, `compose-down` and `compose-logs` run.

    python -m tools.compose up [--profile NAME]    builds, starts, waits until all are healthy, tells the command
    python -m tools.compose down [--volumes]       stops them; their data stays unless --volumes is given
    python -m tools.compose logs [--follow] [NAME]

The two secrets that the containers share, LLMLAB_AUTH_SERVICE_KEY and LLMLAB_POSTGRES_PASSWORD, come from the
environment or a file `.env`; where they are not given, they are made once and kept in `.llmlab/compose/`.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from dotenv import dotenv_values

from llmlab.cli.embedded import ENDPOINTS_FILE, private_file
from services.runtime.settings import DEFAULT_PORTS

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".llmlab" / "compose"
SECRETS = ("LLMLAB_AUTH_SERVICE_KEY", "LLMLAB_POSTGRES_PASSWORD")
WAIT_S = 300


class ComposeError(RuntimeError):
    """Docker, or what it ran, failed; the message says what to do."""


def environment() -> dict[str, str]:
    """What the compose file reads: `.env`, this process's environment, and the secrets, made where they are missing."""
    found = {**{name: value for name, value in dotenv_values(ROOT / ".env").items() if value}, **os.environ}
    for name in SECRETS:
        if not found.get(name):
            found[name] = _kept_secret(name)
    return found


def _kept_secret(name: str) -> str:
    file = HOME / name.lower()
    if not file.exists():
        HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
        with private_file(file) as opened:
            opened.write(secrets.token_hex(32))
    return file.read_text(encoding="ascii")


def compose(*arguments: str, capture: bool = False) -> str:
    """Run `docker compose`; returns what it printed where `capture` is set. Raises ComposeError."""
    docker = shutil.which("docker")
    if docker is None:
        raise ComposeError("docker is missing: install Docker Engine with its compose plugin")
    # More files over docker-compose.yml come from COMPOSE_FILE, as everywhere with compose.
    command = [docker, "compose", "--project-directory", str(ROOT), *arguments]
    done = subprocess.run(  # noqa: S603 (our own command)
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE if capture else None, text=True, check=False
    )
    if done.returncode:
        raise ComposeError(f"docker compose {arguments[0]} failed with status {done.returncode}; its messages say why")
    return done.stdout or ""


def up(profiles: list[str]) -> None:
    """Start everything and tell the `llmlab` command where it is."""
    chosen = [part for profile in profiles for part in ("--profile", profile)]
    compose(*chosen, "up", "--detach", "--build", "--wait", "--wait-timeout", str(WAIT_S))
    credentials = HOME / "credentials.json"
    if not credentials.exists():
        key = compose("run", "--rm", "--no-TTY", "owner", capture=True)
        with private_file(credentials) as file:
            file.write(key)
    publish_endpoints(environment())
    print("all containers are healthy; `llmlab status` shows the services, `make compose-down` stops them")


def publish_endpoints(environ: dict[str, str]) -> None:
    """Write where the services are and where their key is, for the `llmlab` command."""
    file = _endpoints_file(environ)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    targets = {
        name: f"127.0.0.1:{environ.get(f'LLMLAB_{name.upper()}_PORT') or port}" for name, port in DEFAULT_PORTS.items()
    }
    file.write_text(json.dumps({"targets": targets, "home": str(HOME)}), encoding="utf-8")


def down(*, volumes: bool) -> None:
    """Stop and remove the containers; with `volumes` their data too, and the key that opened it."""
    file = _endpoints_file(environment())
    try:
        if json.loads(file.read_text(encoding="utf-8")).get("home") == str(HOME):
            file.unlink()
    except (FileNotFoundError, ValueError):
        pass  # nothing was published
    compose("--profile", "*", "down", "--remove-orphans", *(["--volumes"] if volumes else []))
    if volumes:
        shutil.rmtree(HOME, ignore_errors=True)


def _endpoints_file(environ: dict[str, str]) -> Path:
    return Path(environ.get("LLMLAB_HOME") or "~/.llmlab").expanduser() / ENDPOINTS_FILE


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.compose", description="The services as containers.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="build, start, and wait until healthy")
    start.add_argument("--profile", action="append", default=[], help="redis-ui, observability")
    start.set_defaults(run=lambda parsed: up(parsed.profile))
    stop = commands.add_parser("down", help="stop and remove the containers")
    stop.add_argument("--volumes", action="store_true", help="remove their data too")
    stop.set_defaults(run=lambda parsed: down(volumes=parsed.volumes))
    show = commands.add_parser("logs", help="print the logs")
    show.add_argument("name", nargs="*", help="gateway, postgres ...")
    show.add_argument("--follow", action="store_true", help="go on until interrupted")
    show.set_defaults(
        run=lambda parsed: compose("logs", *(["--follow"] if parsed.follow else ["--tail", "1000"]), *parsed.name)
    )
    parsed = parser.parse_args()
    try:
        parsed.run(parsed)
    except ComposeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
