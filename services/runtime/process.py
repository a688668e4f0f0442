"""A service as a process: settings, logs, signals, one event loop, an exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import uvloop

from services.runtime.errors import DomainError
from services.runtime.logs import configure_logging, redact
from services.runtime.server import RunningServer
from services.runtime.settings import SettingsError, SettingsT, load_settings
from services.runtime.usage import usage

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SETTINGS = 2

# How long a thread may keep the interpreter while others wait for it. With the default of 5 ms a busy event loop
# starves the database's threads: measured, a saturated loop leaves them 49 transactions a second, and 100 with this.
SWITCH_INTERVAL_S = 0.001

COLLECT_AFTER_OBJECTS = 10_000
"""Containers that may be made and live before the garbage collector looks at them: with the default of 700 it looks at
whatever is under way, and finds it alive."""

_log = logging.getLogger(__name__)

Build = Callable[[SettingsT], AbstractAsyncContextManager[RunningServer]]


def run_service(name: str, settings_class: type[SettingsT], build: Build[SettingsT]) -> int:
    """Run the service until SIGTERM or SIGINT, then drain and stop within `grace_s`. Returns the exit code.

    SIGHUP makes it read again what may change while it runs, where there is something of the kind. A setting that is
    wrong, a port that is taken: one line on standard error that names the variable, and exit code 2. Something that is
    needed and cannot be had, a database for one: one line, and exit code 1. A second signal ends the process at once.
    With --help among the process's arguments the settings are printed instead.
    """
    if set(sys.argv[1:]) & {"-h", "--help"}:
        sys.stdout.write(usage(name, settings_class))
        return EXIT_OK
    tune_interpreter()
    try:
        settings = load_settings(settings_class)
        configure_logging(settings)
        uvloop.run(_serve(name, settings, build))
    except SettingsError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 (before and beside any log format)
        return EXIT_SETTINGS
    except DomainError as error:
        print(f"{name}: {error.reason}: {redact(error.message)}", file=sys.stderr)  # noqa: T201 (likewise)
        return EXIT_FAILED
    return EXIT_OK


def tune_interpreter() -> None:
    """Settings of Python itself that suit a process with an event loop and a few working threads."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(COLLECT_AFTER_OBJECTS)


async def _serve(name: str, settings: SettingsT, build: Build[SettingsT]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(signal_number: signal.Signals) -> None:
        _log.info("%s received %s and stops", name, signal_number.name)
        stopping.set()
        # The next one is not waited for: it has its default effect again.
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    async with build(settings) as running:
        if running.reload is not None:
            loop.add_signal_handler(signal.SIGHUP, running.reload)
        # On standard output: whoever started the process with port 0 learns the port here.
        print(f"{name} serves on {running.address}", flush=True)  # noqa: T201
        # Modules and wiring live as long as the process: full collections need not look at them each time.
        gc.freeze()
        await stopping.wait()
    _log.info("%s has stopped", name)
