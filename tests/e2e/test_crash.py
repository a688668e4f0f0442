"""Kill -9 in the middle of runs, on PostgreSQL, with separate processes and the mock provider as one more.

The mock provider's own call log, which is on disk before it answers, is the witness: what the ledger says has to agree
with what the provider saw. Each row of the crash table in ARCHITECTURE.md is a failpoint here.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmlab.api.common.v1 import value_pb2
from llmlab.api.gateway.v1 import chat_pb2
from llmlab.api.orchestrator.v1 import experiment_pb2, run_pb2
from llmlab.client import NetworkError, StreamTruncatedError
from tests.support import witness
from tests.support.cluster import Cluster, MockProvider, cluster, mock_provider
from tests.support.databases import fresh_database, fresh_redis_url

pytestmark = pytest.mark.timeout(180)

CONCURRENCY = 32
RUN_TIMEOUT_S = 90.0


@dataclass
class Laboratory:
    """A cluster whose only provider is the witness."""

    cluster: Cluster
    mock: MockProvider
    database_url: str
    catalogue: Path


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A healthy cluster on PostgreSQL and Redis."""
    folder = tmp_path_factory.mktemp("crash")
    with mock_provider(folder) as mock, fresh_database("postgresql", folder) as database_url:
        catalogue = folder / "catalogue.yaml"
        catalogue.write_text(witness.catalogue(mock.base_url))
        settings = {
            "LLMLAB_GATEWAY_CATALOGUE_FILE": str(catalogue),
            # A killed gateway never tells what came of its calls; the default waits for it for five seconds.
            "LLMLAB_ORCHESTRATOR_UNKNOWN_AFTER_MS": "500",
            "LLMLAB_GATEWAY_CHAT_HISTORY": "true",
            # A turn whose gateway was killed is given up after so long.
            "LLMLAB_GATEWAY_CHAT_ALIVE_S": "2",
        }
        with cluster(folder, database_url=database_url, redis_url=fresh_redis_url(), settings=settings) as running:
            yield Laboratory(running, mock, database_url, catalogue)


async def create(laboratory: Laboratory, cells: int, ttft_ms: int) -> str:
    """Creates an experiment and returns its id."""
    limits = experiment_pb2.RunLimits(concurrency=CONCURRENCY, requests_per_minute=1_000_000)
    spec = witness.study(cells, ttft_ms=ttft_ms, limits=limits)
    async with laboratory.cluster.client() as client:
        return (await client.create_experiment(f"crash-{cells}", spec)).experiment_id


async def start(laboratory: Laboratory, experiment_id: str) -> str:
    """Starts a run of an experiment and returns its id; a repeat gives the id of the same run."""
    async with laboratory.cluster.client() as client:
        return (await client.start_run(experiment_id, request_id=experiment_id)).run_id


async def wait_for(laboratory: Laboratory, run_id: str, done: int) -> None:
    """Returns when that many cells are done."""
    async with laboratory.cluster.client() as client:
        async for event in client.watch_run(run_id):
            if event.HasField("progress") and event.progress.statistics.cells_done >= done:
                return


async def finish(laboratory: Laboratory, run_id: str) -> run_pb2.Run:
    """Watches a run to its end; the watch itself checks that sequences have no gap and no repeat."""
    async with laboratory.cluster.client() as client, asyncio.timeout(RUN_TIMEOUT_S):
        sequences = [event.sequence async for event in client.watch_run(run_id)]
        run = await client.get_run(run_id)
    assert sequences == list(range(1, run.last_sequence + 1))
    return run


def check_against_the_witness(laboratory: Laboratory, run: run_pb2.Run, *, kills: int) -> None:
    """Compares the ledger with the provider's log."""
    attempt_ids = [call["idempotency_key"] for call in laboratory.mock.calls()]
    books = witness.read_books(laboratory.database_url, run, attempt_ids)
    assert witness.disagreements(books) == []
    assert len(books.unknown) <= CONCURRENCY * kills


async def leave_dead(laboratory: Laboratory, call_ids: list[str]) -> None:
    """A streamed call whose gateway is killed at its first text; its id goes into `call_ids`."""
    slow = {"tokens_per_second": value_pb2.Value(int_value=4)}
    async with laboratory.cluster.client() as client:
        async for chunk in client.stream_complete(witness.MODEL, "Why is it so?", provider_options=slow):
            if chunk.HasField("started"):
                call_ids.append(chunk.started.call_id)
            elif chunk.text and "gateway" in laboratory.cluster.processes:
                laboratory.cluster.kill("gateway")


async def test_a_direct_call_whose_gateway_dies_is_not_made_again(laboratory: Laboratory) -> None:
    call_ids: list[str] = []
    with pytest.raises(NetworkError):
        await leave_dead(laboratory, call_ids)
    laboratory.cluster.start("gateway")
    async with laboratory.cluster.client() as client:
        # It answers again, so that whatever it could have repeated it has.
        await client.complete(witness.MODEL, "And now?")
    seen = [call["idempotency_key"] for call in laboratory.mock.calls()]
    assert [attempt_id for attempt_id in seen if attempt_id.startswith(call_ids[0])] == [f"{call_ids[0]}/1"]


async def chat_through_a_kill(laboratory: Laboratory, session_id: str, seen: list[chat_pb2.ChatEvent]) -> None:
    """A chat turn whose gateway is killed at its first text and started again; what was shown goes into `seen`."""
    killed = False
    async with laboratory.cluster.client() as client:
        async for event in client.send_chat_message(session_id, "Count.", turn_id="t1"):
            seen.append(event)
            if not killed and any(chunk.text for chunk in event.chunks):
                killed = True
                laboratory.cluster.kill("gateway")
                laboratory.cluster.start("gateway")


async def test_a_chat_turn_whose_gateway_dies_ends_with_what_was_shown_and_is_not_asked_again(
    laboratory: Laboratory,
) -> None:
    slow = {"tokens_per_second": value_pb2.Value(int_value=20)}
    async with laboratory.cluster.client() as client:
        session_id = (await client.create_chat_session(witness.MODEL, provider_options=slow)).session_id
    seen: list[chat_pb2.ChatEvent] = []
    # The client picks the turn up again where its stream broke, and is told that nobody runs it any more.
    with pytest.raises(StreamTruncatedError):
        await chat_through_a_kill(laboratory, session_id, seen)
    async with laboratory.cluster.client() as client:
        (turn,) = [turn async for turn in client.list_chat_turns(session_id)]
        # The session goes on: the turn that was lost does not block it.
        events = [event async for event in client.send_chat_message(session_id, "And now?", turn_id="t2")]
    assert turn.state == chat_pb2.CHAT_TURN_STATE_FAILED
    # What was shown had been kept before.
    assert turn.answer.parts[0].text == "".join(chunk.text for event in seen for chunk in event.chunks)
    assert events[-1].chunks[-1].HasField("finished")
    asked = [call["idempotency_key"] for call in laboratory.mock.calls()]
    assert [key for key in asked if session_id in key] == [f"chat/{session_id}/{turn}/1" for turn in ("t1", "t2")]


async def test_a_signal_makes_the_gateway_read_its_catalogue_again(laboratory: Laboratory) -> None:
    async with laboratory.cluster.client() as client:
        with laboratory.catalogue.open("a") as file:
            file.write("aliases: {fast: witness/small}\n")
        laboratory.cluster.processes["gateway"].send_signal(signal.SIGHUP)
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while "fast" not in {model.name async for model in client.list_models()}:
                pass
        answer = await client.complete("fast", "Why is it so?")
    assert answer.attempts[0].deployment == witness.MODEL


@pytest.mark.parametrize("victim", ["orchestrator", "gateway"])
async def test_a_run_of_500_cells_survives_a_kill(laboratory: Laboratory, victim: str) -> None:
    run_id = await start(laboratory, await create(laboratory, 500, ttft_ms=20))
    await wait_for(laboratory, run_id, 100)
    laboratory.cluster.kill(victim)
    laboratory.cluster.start(victim)
    run = await finish(laboratory, run_id)
    check_against_the_witness(laboratory, run, kills=1)


def calls_of(laboratory: Laboratory, run_id: str) -> Counter[str]:
    """The attempts of a run, its scorers' included, that the provider has received."""
    seen = (call["idempotency_key"] for call in laboratory.mock.calls())
    return Counter(attempt_id for attempt_id in seen if attempt_id.startswith(f"{run_id}/"))


async def test_a_judge_whose_service_dies_is_not_asked_the_same_twice(laboratory: Laboratory) -> None:
    """What was asked and never answered is asked anew, under another id: so it is known what may be paid twice."""
    limits = experiment_pb2.RunLimits(concurrency=CONCURRENCY, requests_per_minute=1_000_000)
    spec = witness.study(2 * CONCURRENCY, ttft_ms=5, limits=limits)
    judge = spec.scorers.add().scorer
    judge.name = "judge"
    for name, text in (("model", witness.MODEL), ("rubric", "The number is right.")):
        judge.parameters[name].string_value = text
    judge.parameters["samples"].int_value = samples = 2
    async with laboratory.cluster.client() as client:
        experiment = await client.create_experiment("judged", spec)
        run_id = (await client.start_run(experiment.experiment_id)).run_id
        # Nobody tells of a verdict that is asked for: the provider's log does.
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while len(calls_of(laboratory, run_id)) < experiment.cells + CONCURRENCY // 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        laboratory.cluster.kill("metrics")
        laboratory.cluster.start("metrics")
        run = await finish(laboratory, run_id)
        results = [result async for result in client.list_results(run_id=run_id)]
    statistics = run.statistics
    assert statistics.cells_scored == statistics.cells_done == statistics.cells_total == experiment.cells
    verdicts = [score for result in results for score in result.scores if score.name == "judge"]
    assert (len(verdicts), [each for each in verdicts if not each.HasField("value")]) == (experiment.cells, [])
    calls = calls_of(laboratory, run_id)
    assert set(calls.values()) == {1}
    # Under its first id, and under its second where the first answer was lost, or the first call had not left yet when
    # nobody waited for it any more; under no third.
    asked = [attempt_id.removesuffix("/1").rpartition(".") for attempt_id in calls if "/judge-" in attempt_id]
    assert {ordinal for *_, ordinal in asked} <= {"1", "2"}
    assert len({verdict for verdict, *_ in asked}) == samples * experiment.cells
    assert len(calls) == experiment.cells + len(asked)


async def start_and_die(laboratory: Laboratory, experiment_id: str, victim: str) -> int:
    """Asks for the run, which is the same one each time, and waits until the victim has died of its failpoint."""
    # A worker may reach the failpoint before the answer about the run's start is out.
    with suppress(NetworkError):
        await start(laboratory, experiment_id)
    return await asyncio.to_thread(laboratory.cluster.wait_end, victim)


@pytest.mark.parametrize(
    ("victim", "points"),
    [
        ("orchestrator", ["before_sent_commit", "after_sent", "answer_received", "result_committed"]),
        ("gateway", ["before_hold", "after_hold", "during_call", "before_settle", "after_settle"]),
        ("cost", ["hold_committed", "settle_committed"]),
    ],
)
async def test_every_row_of_the_crash_table(laboratory: Laboratory, victim: str, points: list[str]) -> None:
    """One run loses the same service again and again, at each of its failpoints."""
    services = laboratory.cluster
    experiment_id = await create(laboratory, (len(points) + 1) * 2 * CONCURRENCY, ttft_ms=5)
    services.kill(victim)
    try:
        for point in points:
            services.start(victim, LLMLAB_FAILPOINTS=f"{victim}.{point}=kill@3")
            died = await start_and_die(laboratory, experiment_id, victim)
            assert died == -9, f"{victim}.{point} was not hit"
    finally:
        if victim in services.processes:
            services.kill(victim)
        services.start(victim)
    run = await finish(laboratory, await start(laboratory, experiment_id))
    check_against_the_witness(laboratory, run, kills=len(points))
