"""What has to hold after `make chaos`: of each run, of its events, of what is unknown, and of the money."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import psycopg

from bench.chaos_faults import Violation
from llmlab.api.cost.v1 import spend_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.client import Client
from tests.support.witness import Books, Call, disagreements

BILLS_TIMEOUT_S: Final = 90.0
BILLS_LOOK_S: Final = 0.5
_OPEN = "SELECT (SELECT count(*) FROM orchestrator.open_bills) + (SELECT count(*) FROM cost.holds WHERE state = 'held')"
_CHARGED = "SELECT run_id, sum(held_nano_usd)::bigint FROM cost.holds WHERE state = 'expired_charged' GROUP BY run_id"


@dataclass(frozen=True, slots=True)
class Story:
    """One run after its end: its books, the events that its watcher got, and what it cost."""

    books: Books
    sequences: list[int]
    """Of the events, in the order in which they came."""
    charged_nano_usd: int
    """What the cost service has for the run."""
    in_flight: frozenset[Call]
    """The run's calls that were under way at a kill."""


def violations(story: Story) -> list[str]:
    """What is wrong with one run, a sentence each."""
    run = story.books.run
    found = disagreements(story.books)
    if story.sequences != list(range(1, run.last_sequence + 1)):
        found.append(f"run {run.run_id}: its events are not 1 to {run.last_sequence}, each once")
    surprising = story.books.unknown - story.in_flight
    if surprising:
        found.append(f"run {run.run_id}: unknown, but not under way at any kill: {sorted(surprising)[:5]}")
    if run.statistics.cost.cost_nano_usd != story.charged_nano_usd or run.statistics.cost.unpriced_calls:
        found.append(
            f"run {run.run_id}: the ledger has {run.statistics.cost.cost_nano_usd} nano-USD and "
            f"{run.statistics.cost.unpriced_calls} unpriced calls, the cost service {story.charged_nano_usd}"
        )
    return found


async def wait_for_bills(database_url: str) -> None:
    """Wait until every hold is settled or over and the ledger knows what each call cost."""
    left = 0
    for _ in range(round(BILLS_TIMEOUT_S / BILLS_LOOK_S)):
        with psycopg.connect(database_url) as connection:
            ((left,),) = connection.execute(_OPEN).fetchall()
        if not left:
            return
        await asyncio.sleep(BILLS_LOOK_S)
    raise Violation(f"{left} calls still have no cost")


async def charges(client: Client, database_url: str, runs: Iterable[run_pb2.Run]) -> dict[str, int]:
    """Nano-USD of each run by the cost service: what was settled, and what expired holds are charged."""
    spend = await client.summarize_spend(group_by=[spend_pb2.SPEND_DIMENSION_RUN])
    charged = {run.run_id: 0 for run in runs}
    for row in spend.rows:
        if row.keys[0] in charged:
            charged[row.keys[0]] += row.cost.cost_nano_usd
    with psycopg.connect(database_url) as connection:
        for run_id, nano_usd in connection.execute(_CHARGED).fetchall():
            charged[run_id] += nano_usd
    return charged
