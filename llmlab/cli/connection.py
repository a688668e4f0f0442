"""Finding the services: named by the environment, started by `llmlab up`, or else started here for one command."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from llmlab.cli.embedded import HomeInUseError, start_services
from llmlab.client import Client, Tls, find_credentials

# How long `llmlab up` may take to start, or to stop, while another command waits for it.
START_TIMEOUT_S = 60.0
POLL_S = 0.1


def home_folder() -> Path:
    """Returns the folder of embedded data and credentials: LLMLAB_HOME, or ~/.llmlab."""
    return Path(os.environ.get("LLMLAB_HOME") or "~/.llmlab").expanduser()


@asynccontextmanager
async def connect(home: Path | None = None, *, work: asyncio.Event | None = None) -> AsyncIterator[Client]:
    """Yields a client of running services, starting all of them in this process where none are found.

    Where `llmlab up` is just starting or stopping its services, it waits until they are there or gone.

    Args:
        home: Instead of the usual one.
        work: Services that are started here go on with unfinished runs, which costs money, when this is set.

    Raises:
        EmbeddedError: No services were found and none can be started here.
        LlmlabError: The credential found is not accepted.
    """
    folder = home or home_folder()
    async with AsyncExitStack() as stack:
        endpoints, api_key = find_credentials(folder, os.environ)
        give_up_at_s = time.monotonic() + START_TIMEOUT_S
        while endpoints is None:
            try:
                endpoints = await stack.enter_async_context(
                    start_services(folder, fixed_ports=False, work=work or asyncio.Event())
                )
            except HomeInUseError as error:
                if not error.published or time.monotonic() > give_up_at_s:
                    raise
                await asyncio.sleep(POLL_S)
                endpoints, api_key = find_credentials(folder, os.environ)
            else:
                _, api_key = find_credentials(folder, os.environ)
        tls = Tls.from_environment(os.environ)
        yield await stack.enter_async_context(Client(endpoints, api_key=api_key or "", tls=tls))
