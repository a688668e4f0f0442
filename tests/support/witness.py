"""The provider as a witness: what a run's ledger says has to agree with the calls that the mock provider has on disk.

The mock writes a call down before it answers it, and only tests and chaos runs read its log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from llmlab.api.common.v1 import content_pb2, value_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2, run_pb2

_CATALOGUE = """
providers:
  - {{name: witness, kind: openai, base_url: "{base_url}", models: [{{name: "*", billed_as: openai/gpt-4o-mini}}]}}
"""
MODEL = "witness/small"


class Call(NamedTuple):
    """One attempt at a cell."""

    cell: int
    attempt: int


class Record(NamedTuple):
    """What the ledger has on record of one call: a cell's status, or an attempt's outcome."""

    call: Call
    outcome: str


@dataclass(frozen=True, slots=True)
class Books:
    """One run as its ledger and its provider have it."""

    run: run_pb2.Run
    results: list[Record]
    attempts: list[Record]
    in_flight: list[Call]
    """Calls that the ledger still waits for."""
    attempt_ids: list[str]
    """Every call that the provider received, run/cell/attempt/ordinal."""

    @property
    def unknown(self) -> set[Call]:
        """Calls whose outcome is lost."""
        return {record.call for record in (*self.results, *self.attempts) if record.outcome.startswith("unknown")}


def catalogue(base_url: str) -> str:
    """A gateway's catalogue with the witness as its only provider; what it sells has a price."""
    return _CATALOGUE.format(base_url=base_url)


def study(cells: int, *, ttft_ms: int, limits: experiment_pb2.RunLimits) -> experiment_pb2.ExperimentSpec:
    """One prompt, `cells` rows, answers of the witness that begin after so long."""
    message = experiment_pb2.MessageTemplate(role=content_pb2.ROLE_USER, text="Say {{n}}.")
    options = {"ttft_ms": value_pb2.Value(int_value=ttft_ms), "tokens_per_second": value_pb2.Value(int_value=0)}
    rows = [experiment_pb2.Row(columns={"n": value_pb2.Value(int_value=number)}) for number in range(cells)]
    return experiment_pb2.ExperimentSpec(
        prompts=[experiment_pb2.PromptTemplate(name="p", messages=[message])],
        dataset=experiment_pb2.Dataset(rows=rows),
        models=[experiment_pb2.ModelTarget(model=MODEL, provider_options=options)],
        limits=limits,
    )


def read_books(database_url: str, run: run_pb2.Run, attempt_ids: Iterable[str]) -> Books:
    """The books of an ended run, from the orchestrator's own tables; of the `attempt_ids` those that are the run's."""
    with psycopg.connect(database_url) as connection:

        def rows(columns: str, table: str) -> list[tuple[Any, ...]]:
            query = f"SELECT {columns} FROM orchestrator.{table} WHERE run_id = %s"
            return connection.execute(query.encode(), [run.run_id]).fetchall()

        results, attempts = rows("cell, attempt, status", "results"), rows("cell, attempt, outcome", "attempts")
        in_flight = rows("cell, attempt", "in_flight")
    return Books(
        run,
        [Record(Call(cell, attempt), status) for cell, attempt, status in results],
        [Record(Call(cell, attempt), outcome) for cell, attempt, outcome in attempts],
        [Call(*row) for row in in_flight],
        [attempt_id for attempt_id in attempt_ids if attempt_id.startswith(f"{run.run_id}/")],
    )


def disagreements(books: Books) -> list[str]:
    """What breaks the promises of ARCHITECTURE.md, "Paying once", a sentence each; empty for a run that kept them."""
    counts = books.run.statistics
    calls = Counter(_call_of(attempt_id) for attempt_id in books.attempt_ids)
    records = Counter(record.call for record in (*books.results, *books.attempts))
    outcomes = Counter(record.outcome for record in books.results)
    tried = Counter(record.outcome for record in books.attempts)
    answered = outcomes["done"] + tried["failed"]
    perhaps = outcomes["unknown"] + outcomes["failed"] + tried["unknown"] + tried["superseded"]
    promises = {
        "it did not complete": books.run.status == run_pb2.RUN_STATUS_COMPLETED,
        "a cell has no answer and is not unknown": counts.cells_done + counts.cells_unknown == counts.cells_total,
        "an answer has no scores": counts.cells_scored == counts.cells_done,
        "a cell has not exactly one result": sorted(record.call.cell for record in books.results)
        == list(range(counts.cells_total)),
        "its counts are not those of its results": (counts.cells_done, counts.cells_unknown)
        == (outcomes["done"], outcomes["unknown"]),
        "the provider saw an attempt twice": all(count == 1 for count in calls.values()),
        "an attempt was repeated under another ordinal": all(each.endswith("/1") for each in books.attempt_ids),
        "a call has not exactly one record": all(records[call] == 1 for call in calls),
        "a call has two records": all(count == 1 for count in records.values()),
        f"{answered} answers, {len(calls)} calls and {perhaps} of which nobody knows do not fit": answered
        <= len(calls)
        <= answered + perhaps,
        "calls are still in flight": not books.in_flight,
    }
    return [f"run {books.run.run_id}: {broken}" for broken, kept in promises.items() if not kept]


def _call_of(attempt_id: str) -> Call:
    _, cell, attempt, _ = attempt_id.split("/")
    return Call(int(cell), int(attempt))
