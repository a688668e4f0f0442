"""All five services in this process, on SQLite, talking over real gRPC on the loopback interface.

`llmlab` imports nothing from `services`: they are loaded by name, because the client installs without them.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TextIO

from llmlab.client import Endpoints

# Each service comes after those that it calls; they are stopped in the opposite order, so that none loses a peer that
# it still needs to settle what is under way.
START_ORDER = ("identity", "cost", "gateway", "metrics", "orchestrator")

ENDPOINTS_FILE = "endpoints.json"
SERVICE_KEY_FILE = "service.key"
LOCK_FILE = "lock"
LOG_FILE = "llmlab.log"
# In the lock file, beside the process id: of a process that will publish its endpoints, and of a service that was
# started by itself, which shares the lock with others of its kind (services/runtime/home_lock.py).
PUBLISHED = "published"
SERVICE = "service"


class EmbeddedError(Exception):
    """The services can't be started here; the message says why and what to do."""


class HomeInUseError(EmbeddedError):
    """Another process uses the home.

    Attributes:
        published: Whether it is `llmlab up`, which tells other commands where its services are once they have started.
    """

    def __init__(self, message: str, *, published: bool) -> None:
        super().__init__(message)
        self.published = published


@asynccontextmanager
async def start_services(
    home: Path, *, fixed_ports: bool, work: asyncio.Event | None = None
) -> AsyncIterator[Endpoints]:
    """Starts all services on `home` and stops them at the end.

    Args:
        home: Folder of SQLite files, credentials and log, made where it is missing. One process at a time uses it.
        fixed_ports: Listen on the services' usual ports, so that others find them, instead of on free ones.
        work: Go on with unfinished runs only when this is set.

    Raises:
        HomeInUseError: Another process uses the home.
        EmbeddedError: The services are not installed, a setting is wrong, or a port is taken.
    """
    runtime = _Runtime()
    with _exclusive(home, published=fixed_ports):
        shared = {"home": home, "auth_service_key": service_key(home)}
        targets: dict[str, str] = {}
        async with AsyncExitStack() as stack:
            log = stack.enter_context(private_file(home / LOG_FILE))
            runtime.prepare(log)
            for name in START_ORDER:
                overrides: dict[str, Any] = {f"{peer}_target": target for peer, target in targets.items()}
                if name == "gateway":
                    overrides["chat_history"] = True
                if not fixed_ports:
                    overrides["port"] = 0
                    if name == "metrics":  # most commands score nothing
                        overrides["workers_start_early"] = False
                targets[name] = await stack.enter_async_context(runtime.service(name, work, **shared, **overrides))
            if fixed_ports:
                stack.enter_context(_published(home, targets))
            yield Endpoints(**targets)


class _Runtime:
    """The services' side, loaded by name."""

    def __init__(self) -> None:
        self._process = _load("services.runtime.process")
        self._logs = _load("services.runtime.logs")
        self._settings = _load("services.runtime.settings")
        self._errors = _load("services.runtime.errors")

    def prepare(self, log: TextIO) -> None:
        """Tunes the interpreter and sends the services' log records to a file: the screen is the command's."""
        # Processes that are started from here tell of locks of a command that was killed, on its screen.
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")
        self._process.tune_interpreter()
        self._logs.configure_logging(self._settings.ServiceSettings(), log)

    @asynccontextmanager
    async def service(self, name: str, work: asyncio.Event | None, **overrides: Any) -> AsyncIterator[str]:
        """Runs one service and yields its address."""
        told: dict[str, Any] = {"work": work} if name == "orchestrator" else {}
        settings_class = getattr(_load(f"services.{name}.settings"), f"{name.capitalize()}Settings")
        build = _load(f"services.{name}.wiring").build
        async with AsyncExitStack() as stack:
            try:
                settings = self._settings.load_settings(settings_class, **overrides)
                server = await stack.enter_async_context(build(settings, **told))
            except (self._settings.SettingsError, self._errors.DomainError) as error:
                raise EmbeddedError(f"The {name} service can't start: {error}") from error
            yield server.address


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EmbeddedError(
            f"The services are not installed here ({error.name} is missing). Install them with: "
            "pip install 'llmlab[services]', or name running ones with LLMLAB_GATEWAY_TARGET and its siblings."
        ) from error


def private_file(path: Path) -> TextIO:
    """Opens a file for writing, empty, and readable by its owner only, whatever it was before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, "w", encoding="utf-8")


@contextmanager
def _exclusive(home: Path, *, published: bool) -> Iterator[None]:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(
            f"{home} can't be written ({error.strerror}). Choose another folder with LLMLAB_HOME."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(home, os.pread(descriptor, 64, 0).decode(errors="replace").split()) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {PUBLISHED if published else ''}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _in_use(home: Path, holder: list[str]) -> HomeInUseError:
    """The error that fits the holder of the lock: its process id, and whether it publishes its services."""
    process = holder[0] if holder else "unknown"
    if PUBLISHED in holder:
        message = f"`llmlab up` (process {process}) has {home} already. `llmlab status` shows its services."
        return HomeInUseError(message, published=True)
    if SERVICE in holder:
        return HomeInUseError(
            f"Services that were started by themselves use {home}. Name them with LLMLAB_GATEWAY_TARGET and its "
            "siblings, and a key with LLMLAB_API_KEY; or choose another folder with LLMLAB_HOME.",
            published=False,
        )
    return HomeInUseError(
        f"Another llmlab command (process {process}) uses {home}. Wait for its end; or use `llmlab up` first next "
        "time, and then any number of commands at once; or choose another folder with LLMLAB_HOME.",
        published=False,
    )


def service_key(home: Path) -> str:
    """Returns the secret that the services of a home share, made at the first start and readable by nobody else."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / SERVICE_KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w") as file:
        key = secrets.token_hex(32)
        file.write(key)
    return key


@contextmanager
def _published(home: Path, targets: dict[str, str]) -> Iterator[None]:
    path = home / ENDPOINTS_FILE
    path.write_text(json.dumps({"process": os.getpid(), "targets": targets}), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
