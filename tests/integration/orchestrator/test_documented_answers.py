"""Every request about a run in every state, over the wire, against the table that ARCHITECTURE.md shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, update

from llmlab.api.orchestrator.v1 import run_pb2 as pb
from services.orchestrator.states import ENDED, RunStatus
from services.orchestrator.store import tables as t
from services.runtime.database import Database
from tests.support.command import ROOT
from tests.support.orchestrator_rpc import Client, refusal, serving

REQUESTS = ("cancel", "pause", "resume", "retry", "delete")


def documented() -> dict[tuple[str, RunStatus], str]:
    """What the table says, by request and state."""
    lines = [line.strip("| \n").split(" | ") for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines()]
    header = next(cells for cells in lines if cells[0] == "asked for")
    rows = [cells for cells in lines if cells[0] in REQUESTS and len(cells) == len(header)]
    return {
        (request, RunStatus[name]): answer
        for request, *answers in rows
        for names, answer in zip(header[1:], answers, strict=True)
        for name in names.split(", ")
    }


def put(connection: Connection, run_id: str, status: RunStatus) -> None:
    """Bring a run into a state; a worker holds cells of one that has not ended."""
    ended_us = 1 if status in ENDED else 0
    row = update(t.run_progress).where(t.run_progress.c.run_id == run_id)
    connection.execute(row.values(status=status.value, ended_us=ended_us, next_cell=4))
    if not ended_us:
        held = {"run_id": run_id, "first_cell": 0, "cells": 4, "worker_id": "wrk", "fence": 1, "slots": 1}
        connection.execute(insert(t.shards), held)


def asked(client: Client, request: str, run_id: str) -> Any:
    """The call of a request."""
    name = f"{request.capitalize()}Run"
    return getattr(client.runs, name)(getattr(pb, f"{name}Request")(run_id=run_id))


async def test_every_request_in_every_state_is_answered_as_documented(database_url: str, tmp_path: Path) -> None:
    table = documented()
    assert {state for _, state in table} == set(RunStatus)
    assert {request for request, _ in table} == set(REQUESTS)
    async with (
        serving(tmp_path, database_url=database_url, workers=0) as client,
        Database.open(database_url, schema="orchestrator", migrations="services.orchestrator.migrations") as database,
    ):
        experiment = await client.create()
        for (request, state), answer in table.items():
            run_id = (await client.start(experiment.experiment_id)).run_id
            await database.write(put, run_id, state)
            response = None
            if answer == "-":
                error = await refusal(asked(client, request, run_id))
                assert error.reason == "WRONG_STATE", (request, state)
                assert run_id in error.message
            else:
                response = await asked(client, request, run_id)
            if answer == "gone":
                assert (await refusal(client.runs.GetRun(pb.GetRunRequest(run_id=run_id)))).reason == "NOT_FOUND"
                continue
            expected = state.name if answer in ("-", "=") else answer.partition(";")[0]
            after = (await client.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
            assert after.status == pb.RunStatus.Value(f"RUN_STATUS_{expected}"), (request, state)
            assert response is None or response.run == after
