"""A run of a million results: pages of it in every order and by every filter, and all of it as a file.

    make -s bench NAME=results
    python -m bench.results [--rows 1000000] [--database-url postgresql://...] [--export-rows 1000000]

The rows are loaded by SQL; the orchestrator that is asked is a real one, over gRPC, in this process. The last line of
output is one JSON object; `bench/README.md` explains its keys.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop
from sqlalchemy import Connection, text, update

from bench.environment import environment
from llmlab.api.common.v1 import content_pb2, error_pb2
from llmlab.api.metrics.v1 import metrics_pb2
from llmlab.api.orchestrator.v1 import run_pb2 as pb
from llmlab.api.orchestrator.v1.run_pb2_grpc import ResultServiceStub
from services.orchestrator.experiment import (
    ExperimentSpec,
    MessageTemplate,
    ModelTarget,
    ParameterAxis,
    PromptTemplate,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.records import ExperimentRecord, RunRecord, Statistics
from services.orchestrator.rpc.codec import answer_body
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.spec_codec import encode_spec, spec_hash
from services.orchestrator.states import RunStatus
from services.orchestrator.store import tables as t
from services.orchestrator.store.experiments import insert_experiment, insert_spec
from services.orchestrator.store.runs import insert_run
from services.orchestrator.wiring import build
from services.runtime.auth import LOCAL_PRINCIPAL
from services.runtime.channel import open_channel
from services.runtime.database import Database
from services.runtime.service_database import open_service_database

ROWS = 1_000_000
ROUNDS = 20
FAILED_EVERY = 1_000
AIM_MS = 100
RUN = "run_bench"
PROJECT = LOCAL_PRINCIPAL.project_id
ANSWER = "A plain answer of the usual length, which says what there is to say about the topic. " * 5
SAMPLE_EVERY_ROWS = 20_000


def study(rows: int) -> ExperimentSpec:
    """10 prompts, 100 rows, 4 models, 5 temperatures, and repeats for the rest."""
    return ExperimentSpec(
        prompts=tuple(PromptTemplate(f"p{n}", (MessageTemplate("user", "Explain {{topic}}."),)) for n in range(10)),
        rows=tuple({"topic": f"topic {number}"} for number in range(100)),
        models=tuple(ModelTarget(f"mock/{name}") for name in ("a", "b", "c", "d")),
        grid=(ParameterAxis("temperature", (0.0, 0.3, 0.7, 1.0, 1.3)),),
        repeats=max(1, rows // 20_000),
    )


def load(connection: Connection, database: Database, rows: int) -> None:
    """Inserts an ended run with its results, answers and scores."""
    spec = study(rows)
    encoded = encode_spec(spec)
    cells = 20_000 * spec.repeats
    now_us = time.time_ns() // 1_000
    digest = spec_hash(encoded)
    insert_spec(connection, database, PROJECT, digest, encoded)
    insert_experiment(connection, ExperimentRecord("exp_bench", PROJECT, "bench", "", digest, cells, now_us, now_us))
    run = RunRecord(
        RUN, PROJECT, "exp_bench", "bench", RunStatus.PENDING, digest, RunLimits().in_force(), "", "", "",
        now_us, last_sequence=1, statistics=Statistics(cells_total=cells),
    )  # fmt: skip
    insert_run(connection, run)
    failed = cells // FAILED_EVERY
    ended = {"status": RunStatus.COMPLETED.value, "last_sequence": cells + 1, "done": cells - failed, "failed": failed}
    connection.execute(update(t.run_progress).values(**ended, scored=cells - failed, next_cell=cells))
    for statement, values in _statements(connection.dialect.name, cells, spec, now_us):
        connection.execute(text(statement), values)


def _statements(dialect: str, cells: int, spec: ExperimentSpec, now_us: int) -> list[tuple[str, dict[str, Any]]]:
    """INSERT ... SELECT over numbers; latencies and costs are scattered by multiplication."""
    schema, numbers = "orchestrator.", "SELECT generate_series(0, :cells - 1) AS n"
    if dialect == "sqlite":
        schema = ""
        numbers = "WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < :cells - 1) SELECT n FROM c"
    columns = [column.name for column in t.results.c]
    zero = dict.fromkeys(columns, "0")
    yes, no = ("true", "false") if dialect == "postgresql" else ("1", "0")
    fails = f"n % {FAILED_EVERY} = 7"
    values = zero | {
        "run_id": ":run",
        "cell": "n",
        "sequence": "n + 2",
        "status": f"CASE WHEN {fails} THEN 'failed' ELSE 'done' END",
        "model": f"(n / {5 * spec.repeats}) % 4",
        "attempt": "1",
        "attempts": "1",
        "finish_reason": "'STOP'",
        "provider_model": "''",
        "input_tokens": "12",
        "output_tokens": "90",
        "cost_nano_usd": "(n * 7919) % 100003",
        "latency_us": f"CASE WHEN {fails} THEN 0 ELSE 1000 + (n * 104729) % 2000003 END",
        "ttft_any_us": "900",
        "ttft_output_us": "900",
        "streamed": yes,
        "error_reason": f"CASE WHEN {fails} THEN 'PROVIDER_ERROR' ELSE '' END",
        "scored": f"CASE WHEN {fails} THEN {no} ELSE {yes} END",
        "created_us": ":now",
    }
    packed = metrics_pb2.SampleScores(
        scores=[metrics_pb2.Score(name=name, value=0.5) for name in ("quality", "relevance", "readability.smog_grade")]
    )
    body = answer_body([content_pb2.ContentPart(text=ANSWER)])
    empty = "''::bytea" if dialect == "postgresql" else "x''"
    common = {"run_id": ":run", "cell": "n"}
    answers = common | {"answer": f"CASE WHEN {fails} THEN {empty} ELSE :body END", "error": empty}
    scores = common | {"score_set": "'default'", "packed": ":packed", "merit": "((n * 6151) % 1000) / 1000.0"}

    def insert(table: str, values: dict[str, str], condition: str = "") -> str:
        names, selected = ", ".join(values), ", ".join(values.values())
        return f"INSERT INTO {schema}{table} ({names}) SELECT {selected} FROM ({numbers}) AS c {condition}"  # noqa: S608 (own text)

    known = {"cells": cells, "run": RUN}
    return [
        (insert("results", values), {**known, "now": now_us}),
        (insert("result_bodies", answers), {**known, "body": body}),
        (insert("scores", scores, f"WHERE NOT ({fails})"), {**known, "packed": packed.SerializeToString()}),
    ]


def questions() -> dict[str, pb.ListResultsRequest]:
    """First pages in every order, and by every filter, selective ones among them."""
    of_run = pb.ResultFilter(run_id=RUN)
    asked = {
        f"order {name.removeprefix('RESULT_ORDER_').lower()}": pb.ListResultsRequest(filter=of_run, order=number)
        for name, number in pb.ResultOrder.items()
        if number
    }
    failed = [pb.CELL_STATUS_FAILED]
    reasons = [error_pb2.ERROR_REASON_PROVIDER_ERROR]
    none = [error_pb2.ERROR_REASON_RATE_LIMITED]
    filters = {
        "experiment": pb.ResultFilter(experiment_id="exp_bench"),
        "failed": pb.ResultFilter(run_id=RUN, statuses=failed),
        "unknown, none there": pb.ResultFilter(run_id=RUN, statuses=[pb.CELL_STATUS_UNKNOWN]),
        "one model": pb.ResultFilter(run_id=RUN, models=["mock/d"]),
        "last prompt": pb.ResultFilter(run_id=RUN, prompts=["p9"]),
        "reason": pb.ResultFilter(run_id=RUN, error_reasons=reasons),
        "reason, none there": pb.ResultFilter(run_id=RUN, error_reasons=none),
        "failed of one model and prompt": pb.ResultFilter(
            run_id=RUN, statuses=failed, models=["mock/b"], prompts=["p5"]
        ),
    }
    asked |= {f"filter {name}": pb.ListResultsRequest(filter=chosen) for name, chosen in filters.items()}
    slow = pb.ListResultsRequest(filter=filters["one model"], order=pb.RESULT_ORDER_SLOWEST_FIRST, full=True)
    return asked | {"slowest of one model, full": slow}


async def timed(stub: Any) -> dict[str, Any]:
    """The milliseconds of each question, and of second pages."""
    found: dict[str, Any] = {}
    for name, request in questions().items():
        took, page = [], pb.ListResultsResponse()
        for _ in range(ROUNDS):
            before = time.perf_counter()
            page = await stub.ListResults(request)
            took.append((time.perf_counter() - before) * 1_000)
        found[name] = {"p50": round(statistics.median(took), 1), "max": round(max(took), 1), "rows": len(page.results)}
        if page.next_page_token:
            following = pb.ListResultsRequest()
            following.CopyFrom(request)
            following.page_token = page.next_page_token
            before = time.perf_counter()
            await stub.ListResults(following)
            found[name]["second_page"] = round((time.perf_counter() - before) * 1_000, 1)
    return found


async def exported(stub: Any, rows: int) -> dict[str, Any]:
    """The rate of an export as JSON Lines, and the resident memory along the way."""
    this, samples = psutil.Process(), []
    began = time.perf_counter()
    size = results = 0
    request = pb.ExportResultsRequest(filter=pb.ResultFilter(run_id=RUN), format=pb.EXPORT_FORMAT_JSON_LINES)
    call = stub.ExportResults(request)
    async for piece in call:
        size += len(piece.data)
        if piece.results // SAMPLE_EVERY_ROWS > results // SAMPLE_EVERY_ROWS:
            samples.append(this.memory_info().rss / 1e6)
        results = piece.results
        if results >= rows:
            break
    call.cancel()
    seconds = time.perf_counter() - began
    warm = samples[len(samples) // 5 :] or [0.0]
    return {
        "rows": results,
        "mb": round(size / 1e6),
        "rows_per_s": round(results / seconds),
        "rss_mb": {"first": round(warm[0], 1), "last": round(warm[-1], 1), "highest": round(max(warm), 1)},
    }


async def measure(rows: int, export_rows: int, database_url: str, home: Path) -> dict[str, Any]:
    """Loads the rows and asks."""
    settings = OrchestratorSettings(
        port=0, home=home, auth_required=False, workers=0, database_url=database_url, log_level="ERROR"
    )
    began = time.perf_counter()
    async with open_service_database(settings) as database:
        await database.write(load, database, rows, timeout_s=600)
        dialect = database.dialect
        if dialect == "postgresql":
            await database.write(lambda connection: connection.execute(text("ANALYZE")), timeout_s=600)
    loaded_s = round(time.perf_counter() - began, 1)
    async with build(settings) as running, open_channel(running.address, settings) as channel:
        stub = ResultServiceStub(channel)
        listed = await timed(stub)
        worst = max(listed, key=lambda name: listed[name]["max"])
        return {
            "load": {"rows": rows, "database": dialect, "loaded_s": loaded_s},
            "list_ms": listed,
            "slowest": {"question": worst, **listed[worst], "aim_ms": AIM_MS},
            "export": await exported(stub, export_rows),
        }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--export-rows", type=int, default=ROWS)
    parser.add_argument("--database-url", default="", help="a fresh database; an SQLite file if absent")
    chosen = parser.parse_args()
    before = environment()
    with tempfile.TemporaryDirectory(prefix="llmlab-bench-") as folder:
        figures = uvloop.run(measure(chosen.rows, chosen.export_rows, chosen.database_url, Path(folder)))
    json.dump({"bench": "results", **before, **figures}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
