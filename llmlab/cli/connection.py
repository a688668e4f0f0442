"""Finding the services: named by the environment, started by `llmlab up`, or else started here for one command."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from llmlab.cli.embedded import start_services
from llmlab.client import Client, find_credentials


def home_folder() -> Path:
    """Returns the folder of embedded data and credentials: LLMLAB_HOME, or ~/.llmlab."""
    return Path(os.environ.get("LLMLAB_HOME") or "~/.llmlab").expanduser()


@asynccontextmanager
async def connect(home: Path | None = None) -> AsyncIterator[Client]:
    """Yields a client of running services, starting all of them in this process where none are found.

    Raises:
        EmbeddedError: No services were found and none can be started here.
        LlmlabError: The credential found is not accepted.
    """
    folder = home or home_folder()
    async with AsyncExitStack() as stack:
        endpoints, api_key = find_credentials(folder, os.environ)
        if endpoints is None:
            endpoints = await stack.enter_async_context(start_services(folder, fixed_ports=False))
            _, api_key = find_credentials(folder, os.environ)
        yield await stack.enter_async_context(Client(endpoints, api_key=api_key or ""))
