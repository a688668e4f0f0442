"""A service as a process: settings, logs, signals, one event loop, an exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import uvloop

from services.runtime.logs import configure_logging
from services.runtime.server import RunningServer
from services.runtime.settings import SettingsError, SettingsT, load_settings

EXIT_OK = 0
EXIT_SETTINGS = 2

_log = logging.getLogger(__name__)

Build = Callable[[SettingsT], AbstractAsyncContextManager[RunningServer]]


def run_service(name: str, settings_class: type[SettingsT], build: Build[SettingsT]) -> int:
    """Run the service until SIGTERM or SIGINT, then drain and stop within `grace_s`. Returns the exit code.

    A setting that is wrong, a port that is taken: one line on standard error that names the variable, and exit code 2.
    A second signal ends the process at once.
    """
    try:
        settings = load_settings(settings_class)
        configure_logging(settings)
        uvloop.run(_serve(name, settings, build))
    except SettingsError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 (before and beside any log format)
        return EXIT_SETTINGS
    return EXIT_OK


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
        # On standard output: whoever started the process with port 0 learns the port here.
        print(f"{name} serves on {running.address}", flush=True)  # noqa: T201
        await stopping.wait()
    _log.info("%s has stopped", name)
