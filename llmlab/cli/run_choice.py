"""Which run a person means: an id, or `latest`."""

from __future__ import annotations

from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli.app import EXIT_FAILED, EXIT_USAGE, CommandError
from llmlab.client import Client, NotFoundError

LATEST = "latest"


async def pick_run(client: Client, run: str) -> run_pb2.Run:
    """Returns the run of that id, or the newest for `latest`.

    Raises:
        CommandError: There is none.
    """
    if run != LATEST:
        try:
            return await client.get_run(run)
        except NotFoundError as error:
            raise CommandError(f"{error.message} `llmlab runs` lists those that exist.", EXIT_FAILED) from error
    async for newest in client.list_runs():
        return newest
    raise CommandError("There are no runs yet. `llmlab demo` makes one.", EXIT_USAGE)


async def run_id_of(client: Client, run: str) -> str:
    """Returns the id that spend is charged to: of the newest run for `latest`; others as given, "" for none.

    They need not be runs of the orchestrator: programs that report usage name runs of their own.
    """
    return (await pick_run(client, run)).run_id if run == LATEST else run
