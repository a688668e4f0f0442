"""The five services as five processes on this machine: what `make up`, `make down` and `make logs` run.

    python -m tools.processes up                     starts them and waits until all are healthy
    python -m tools.processes down                   stops what `up` started, in the order that loses nothing
    python -m tools.processes logs [--follow] [NAME]

PostgreSQL and Redis are those of LLMLAB_DATABASE_URL and LLMLAB_REDIS_URL, in the environment or in a file `.env`;
where one is not named, a local one is started and its data kept in `.llmlab/`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import grpc
import psutil
from dotenv import dotenv_values
from grpc_health.v1 import health_pb2

from llmlab.cli.embedded import ENDPOINTS_FILE, private_file, service_key
from services.runtime.settings import ServiceSettings, SettingsError, load_settings
from tools.local_servers import LocalServer, local_postgres, local_redis, remove_sockets

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".llmlab"
STATE = DATA / "processes"
# The services' own home, for the key of the owner in their database: the person's home may hold that of another one.
SERVICES_HOME = DATA / "home"

# A service stops before those that it calls.
SERVICES = ("identity", "cost", "metrics", "gateway", "orchestrator")
SERVERS = ("postgres", "redis")

START_TIMEOUT_S = 60.0
# A service drains for at most `grace_s` (30 s by default); what is still there after that is killed.
STOP_TIMEOUT_S = 45.0
POLL_S = 0.05
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_TIMEOUT_S = 2.0
LOG_LINES_SHOWN = 20

# In STATE: the path of the file that tells the command where the services are.
PUBLISHED_FILE = "published"

# PostgreSQL ends its sessions on SIGINT; SIGTERM would wait for them.
_STOP_SIGNALS = {"postgres": signal.SIGINT}


class StartError(RuntimeError):
    """Something did not start; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process that `up` started. The time of its creation tells it from a later one with the same id."""

    pid: int
    created_at_s: float

    @property
    def process(self) -> psutil.Process | None:
        """The process, if it is still there."""
        try:
            process = psutil.Process(self.pid)
            alive = process.create_time() == self.created_at_s and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


def record_file(name: str) -> Path:
    """Where the process of that name is remembered."""
    return STATE / f"{name}.json"


def log_file(name: str) -> Path:
    """Where the process of that name writes its log."""
    return STATE / f"{name}.log"


def recorded(name: str) -> Started | None:
    """What is remembered of the process of that name."""
    try:
        return Started(**json.loads(record_file(name).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def running(name: str) -> psutil.Process | None:
    """The process of that name, if `up` started it and it lives."""
    started = recorded(name)
    return started.process if started else None


def start(name: str, command: list[str], environment: dict[str, str], **options: object) -> psutil.Process:
    """Starts a process in a session of its own, so that it outlives this one, and remembers it."""
    STATE.mkdir(parents=True, exist_ok=True)
    with private_file(log_file(name)) as log:
        child = subprocess.Popen(  # type: ignore[call-overload] # noqa: S603 (our own commands)
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            cwd=ROOT,
            **options,
        )
    # It is meant to outlive this process: without a status, Popen would warn that nobody waited for it.
    child.returncode = 0
    process = psutil.Process(child.pid)
    record_file(name).write_text(json.dumps(asdict(Started(child.pid, process.create_time()))))
    return process


def wait_until(name: str, process: psutil.Process, answers: Callable[[], bool]) -> None:
    """Waits until `answers()` is true.

    Raises:
        StartError: the process has ended, or the time is over; with the end of its log.
    """
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while not answers():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise StartError(f"{name} ended while starting:\n{log_end(name)}")
        if time.monotonic() > give_up_at:
            raise StartError(f"{name} did not answer within {START_TIMEOUT_S:.0f} s:\n{log_end(name)}")
        time.sleep(POLL_S)


def log_end(name: str) -> str:
    """The last lines of a log, indented."""
    lines = log_file(name).read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    return "\n".join(f"  {line}" for line in lines)


def up() -> int:
    """Starts what is not running; returns the exit status."""
    environment = {**{name: value for name, value in dotenv_values(ROOT / ".env").items() if value}, **os.environ}
    try:
        _provide("LLMLAB_DATABASE_URL", lambda: local_postgres(DATA), environment)
        _provide("LLMLAB_REDIS_URL", lambda: local_redis(DATA), environment)
        home = Path(environment.get("LLMLAB_HOME") or "~/.llmlab").expanduser()
        environment["LLMLAB_HOME"] = str(SERVICES_HOME)
        environment.setdefault("LLMLAB_AUTH_SERVICE_KEY", service_key(SERVICES_HOME))
        os.environ.update(environment)
        targets = _start_services(environment)
    except (StartError, SettingsError) as error:
        print(error, file=sys.stderr)
        print("stopping what was started", file=sys.stderr)
        down()
        return 1
    publish_endpoints(home, targets)
    print("all services are healthy; `llmlab status` shows them, `make down` stops them")
    return 0


def _provide(variable: str, make: Callable[[], LocalServer | None], environment: dict[str, str]) -> None:
    """Sets the URL of a server of our own where the environment names none."""
    if environment.get(variable):
        print(f"{variable} is given")
        return
    server = make()
    if server is None:
        print(f"{variable} is not given and no redis-server is installed: each process keeps limits for itself")
        return
    if running(server.name) is None:
        process = start(server.name, server.command, environment, **server.options)
        wait_until(server.name, process, server.answers)
    environment[variable] = server.url
    print(f"{server.name} answers at {server.url}")


def _start_services(environment: dict[str, str]) -> dict[str, str]:
    """Starts the services that are not running, at once, and waits until all are healthy; returns their targets."""
    targets = {name: service_target(name) for name in SERVICES}
    started = {
        name: running(name) or start(name, [sys.executable, "-m", f"services.{name}"], environment) for name in SERVICES
    }
    for name, target in targets.items():
        wait_until(name, started[name], partial(is_healthy, target))
        print(f"{name} is healthy at {target} (process {started[name].pid})")
    return targets


def service_target(name: str) -> str:
    """Where a service listens by its settings."""
    module = import_module(f"services.{name}.settings")
    settings_class: type[ServiceSettings] = getattr(module, f"{name.capitalize()}Settings")
    settings = load_settings(settings_class)
    if settings.port == 0:
        raise StartError(f"{settings_class.variable('port')}: 0 means any port; give each process one that others know")
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 (compared, not bound)
    return f"{host}:{settings.port}"


def is_healthy(target: str) -> bool:
    """Whether the server at `target` answers SERVING for all that it does."""
    with grpc.insecure_channel(target) as channel:
        check = channel.unary_unary(
            HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def publish_endpoints(home: Path, targets: dict[str, str]) -> None:
    """Tells the `llmlab` command where the services are, and where the key that opens them is."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = home / ENDPOINTS_FILE
    file.write_text(json.dumps({"targets": targets, "home": str(SERVICES_HOME)}), encoding="utf-8")
    (STATE / PUBLISHED_FILE).write_text(str(file), encoding="utf-8")


def withdraw_endpoints() -> None:
    """Takes back what `publish_endpoints` wrote, unless another `up` has written its own since."""
    record = STATE / PUBLISHED_FILE
    try:
        file = Path(record.read_text(encoding="utf-8"))
        if json.loads(file.read_text(encoding="utf-8")).get("home") == str(SERVICES_HOME):
            file.unlink()
    except (FileNotFoundError, ValueError):
        pass  # nothing was published, or it is gone
    record.unlink(missing_ok=True)


def down() -> int:
    """Stops what `up` started and leaves only data and logs; returns the exit status."""
    withdraw_endpoints()
    stopped = [name for name in (*reversed(SERVICES), *reversed(SERVERS)) if _stop(name)]
    remove_sockets(DATA)
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    return 0


def _stop(name: str) -> bool:
    """Ends one process, gently first; returns whether it was running."""
    process = running(name)
    if process is not None:
        process.send_signal(_STOP_SIGNALS.get(name, signal.SIGTERM))
        try:
            process.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            print(f"{name} did not stop within {STOP_TIMEOUT_S:.0f} s: killed", file=sys.stderr)
            process.kill()
            process.wait()
    record_file(name).unlink(missing_ok=True)
    return process is not None


def logs(name: str, *, follow: bool) -> int:
    """Prints the logs, of one process or of all, each line with its process's name; returns the exit status."""
    names = [name] if name else [candidate for candidate in (*SERVERS, *SERVICES) if log_file(candidate).exists()]
    missing = [candidate for candidate in names if not log_file(candidate).exists()]
    if missing:
        print(f"no log of {', '.join(missing)}: known are {', '.join((*SERVERS, *SERVICES))}", file=sys.stderr)
        return 1
    positions = dict.fromkeys(names, 0)
    try:
        while True:
            for candidate in names:
                for line in _new_lines(candidate, positions):
                    print(f"{candidate:<12} {line}", flush=True)
            if not follow:
                return 0
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0


def _new_lines(name: str, positions: dict[str, int]) -> Iterator[str]:
    """Whole lines that were added since the last call."""
    with log_file(name).open("rb") as file:
        file.seek(positions[name])
        for line in file:
            if not line.endswith(b"\n"):
                break
            positions[name] += len(line)
            yield line.decode(errors="replace").rstrip()


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.processes", description="The services as processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start, and wait until healthy").set_defaults(run=lambda _: up())
    commands.add_parser("down", help="stop what `up` started").set_defaults(run=lambda _: down())
    show = commands.add_parser("logs", help="print the logs")
    show.add_argument("name", nargs="?", default="", help="one process: gateway, postgres ...")
    show.add_argument("--follow", action="store_true", help="go on until interrupted")
    show.set_defaults(run=lambda parsed: logs(parsed.name, follow=parsed.follow))
    parsed = parser.parse_args()
    status: int = parsed.run(parsed)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
