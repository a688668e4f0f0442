"""What the gateway costs and adds: one gateway on one core, its callers and a raw-asyncio provider on the other.

    make -s bench NAME=gateway
    python -m bench.gateway [--calls 3000] [--soak-calls 200000] [--database postgresql|sqlite]

Authentication, limits, breaker, cache look-up and single-flight are on. The floor is measured in the same run: a bare
grpc.aio handler around one raw aiohttp call. The last line of output is one JSON object; `bench/README.md` explains it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import psutil
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.cost_server import ROOT, SERVICE_KEY, CostServer, DatabaseKind, cost_server
from bench.cpu import cpu_s, rss_mb
from bench.environment import environment
from bench.gateway_load import Direct, Load, in_turn, latencies_ms, percentile
from llmlab.api.cost.v1 import hold_pb2
from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceStub
from services.runtime.auth import ServiceTokenMinter
from services.runtime.channel import call_metadata

if TYPE_CHECKING:
    from llmlab.api.cost.v1.hold_pb2_grpc import HoldServiceAsyncStub

PROJECT = "prj_bench"
MINTER = ServiceTokenMinter("gateway", Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SERVICE_KEY)))
GATEWAY_CORE, LOAD_CORE = 0, 1
CONCURRENCY = 8
PERCENTILES = {"p50": 0.5, "p99": 0.99}
CALLS = 3_000
LATENCY_CALLS = 500
CHUNK_STREAMS = 60
"""As many as have to run with a message for every token."""
START_TIMEOUT_S = 60.0
STREAM_S = 4.0
STREAM_STEPS = (30, 60, 100, 150, 200, 300, 400)
UNCOALESCED_MAX = 1.01
"""Tokens in a message, on average, up to which every token has had a message of its own."""
SOAK_CALLS = 200_000
CACHE_MAX_BYTES = "8000000"
"""Full, and then kept full, after some 10,000 calls: else a soak would show nothing but the filling of the cache."""
SOAK_WARM_UP = 0.2
"""Share of the soak's calls before the memory is first looked at: pools and caches fill."""
CANCEL_EVERY = 20
CATALOGUE = """
providers:
  - name: upstream
    kind: openai
    base_url: "http://127.0.0.1:{port}/v1"
    models: [{{name: bench, requests_per_minute: 100000000, tokens_per_minute: 100000000000}}]
"""


@contextmanager
def process(core: int, *arguments: str, environ: Mapping[str, str]) -> Iterator[tuple[psutil.Process, int]]:
    """A child on that core only (where there are two), which prints its port, until the block ends."""
    mine = os.sched_getaffinity(0)
    cores = sorted(mine)
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    try:
        child = subprocess.Popen(  # noqa: S603 (our own modules)
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
    finally:
        os.sched_setaffinity(0, mine)
    try:
        assert child.stdout is not None
        line = child.stdout.readline().decode().split()
        if not line:
            raise SystemExit(f"{arguments[0]} did not start")
        yield psutil.Process(child.pid), int(line[-1].rpartition(":")[2])
    finally:
        child.terminate()
        child.communicate()


@asynccontextmanager
async def gateway(
    home: Path, upstream_port: int, cost: CostServer | None
) -> AsyncIterator[tuple[psutil.Process, Load]]:
    """A gateway on the first core, with a cost service or without one, and the load for it."""
    catalogue = home / "catalogue.yaml"
    catalogue.write_text(CATALOGUE.format(port=upstream_port))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLMLAB_")}
    environ |= {
        "LLMLAB_HOME": str(home),
        "LLMLAB_GATEWAY_PORT": "0",
        "LLMLAB_GATEWAY_CATALOGUE_FILE": str(catalogue),
        "LLMLAB_GATEWAY_KEY_REQUESTS_PER_MINUTE": "100000000",
        "LLMLAB_GATEWAY_CACHE_MAX_BYTES": CACHE_MAX_BYTES,
        "LLMLAB_AUTH_SERVICE_KEY": SERVICE_KEY,
        **({"LLMLAB_GATEWAY_COST_TARGET": cost.target} if cost else {"LLMLAB_GATEWAY_ACCOUNTING": "off"}),
    }
    with process(GATEWAY_CORE, "services.gateway", environ=environ) as (child, port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), START_TIMEOUT_S)
            yield child, Load(channel, f"127.0.0.1:{port}", _metadata)


def _metadata() -> tuple[tuple[str, str], ...]:
    return call_metadata(MINTER.token(PROJECT, permissions=("CALL",)))


async def unary(child: psutil.Process, load: Load, calls: int) -> float:
    """CPU milliseconds of a call in the process between the callers and the provider, eight calls at a time."""
    await latencies_ms(load.complete, calls // 10, CONCURRENCY)
    before = cpu_s(child)
    await latencies_ms(load.complete, calls, CONCURRENCY)
    return round((cpu_s(child) - before) * 1_000 / calls, 4)


async def chunks(child: psutil.Process, load: Load) -> float:
    """CPU microseconds of a token of concurrent streams, each in a message of its own where the reader keeps up."""
    before = cpu_s(child)
    figures = await load.streams(CHUNK_STREAMS, STREAM_S)
    return round((cpu_s(child) - before) * 1e6 / figures.tokens, 1)


async def clean_streams(load: Load) -> dict[str, Any]:
    """The most concurrent streams whose readers notice nothing: with a message for every token, and at all."""
    found = {"clean_streams": 0, "clean_streams_uncoalesced": 0}
    steps = {}
    for count in STREAM_STEPS:
        figures = await load.streams(count, STREAM_S)
        steps[count] = {"gap_p99_ms": figures.gap_p99_ms, "tokens_per_message": figures.tokens_per_message}
        if not figures.clean:
            break
        found["clean_streams"] = count
        if figures.tokens_per_message <= UNCOALESCED_MAX:
            found["clean_streams_uncoalesced"] = count
    return {**found, "streams_by_count": steps}


async def soak(child: psutil.Process, load: Load, calls: int) -> dict[str, float]:
    """Memory that the process gained over so many calls, of which one in twenty is a stream that is left."""
    numbers = itertools.count()

    async def call() -> None:
        if next(numbers) % CANCEL_EVERY == 0:
            await load.cancelled(after_s=0.03)
        else:
            await load.complete()

    warm_up = int(calls * SOAK_WARM_UP)
    await latencies_ms(call, warm_up, CONCURRENCY)
    before_mb = rss_mb([child])
    began = time.monotonic()
    await latencies_ms(call, calls - warm_up, CONCURRENCY)
    return {
        "rss_mb": before_mb,
        "rss_growth_mb": round(rss_mb([child]) - before_mb, 1),
        "soak_calls_per_s": round((calls - warm_up) / (time.monotonic() - began), 1),
    }


async def measure(database: DatabaseKind, calls: int, soak_calls: int) -> dict[str, Any]:
    """All figures; see bench/README.md."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environ = dict(os.environ)
        _, upstream = stack.enter_context(process(LOAD_CORE, "bench.gateway_upstream", environ=environ))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        direct = Direct(session, f"http://127.0.0.1:{upstream}/v1/chat/completions")
        figures: dict[str, Any] = {}
        with process(GATEWAY_CORE, "bench.gateway_floor", str(upstream), environ=environ) as (floor, port):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                load = Load(channel, f"127.0.0.1:{port}", tuple)
                figures["floor_cpu_ms_per_call"] = await unary(floor, load, calls)
                figures["floor_cpu_us_per_chunk"] = await chunks(floor, load)
        _say(figures)
        async with gateway(home, upstream, None) as (child, load):
            figures["cpu_ms_per_call"] = await unary(child, load, calls)
            through, beside = await in_turn(load.complete, direct.complete, LATENCY_CALLS)
            figures |= {f"added_{name}_ms": added(through, beside, share) for name, share in PERCENTILES.items()}
            figures["cpu_us_per_chunk"] = await chunks(child, load)
            figures |= await clean_streams(load)
            _say(figures)
            figures |= await soak(child, load, soak_calls)
        cost = await stack.enter_async_context(cost_server(database, home))
        async with gateway(home, upstream, cost) as (child, load):
            figures["cpu_ms_per_call_with_hold"] = await unary(child, load, calls)
            through, beside = await in_turn(load.complete, direct.complete, LATENCY_CALLS)
            figures["added_p50_ms_with_hold"] = added(through, beside, 0.5)
            through, beside = await in_turn(load.complete_with_cost, direct.complete, LATENCY_CALLS)
            figures["added_p50_ms_with_cost"] = added(through, beside, 0.5)
            figures["hold_p50_ms"] = await hold_p50_ms(cost)
        return figures


async def hold_p50_ms(cost: CostServer) -> float:
    """What a hold alone takes, one at a time."""
    async with cost.channel() as channel:
        stub: HoldServiceAsyncStub = HoldServiceStub(channel)
        numbers = itertools.count()

        async def hold() -> None:
            item = hold_pb2.HoldItem(
                attempt_id=f"alone/{next(numbers)}/1/1",
                nonce="n1",
                provider="upstream",
                model="bench",
                input_tokens_max=100,
                output_tokens_max=1,
                expires_in_ms=60_000,
            )
            await stub.Hold(hold_pb2.HoldRequest(item=item), metadata=cost.metadata(PROJECT))

        return percentile(await latencies_ms(hold, LATENCY_CALLS, 1), 0.5)


def added(through: list[float], beside: list[float], share: float) -> float:
    """What the gateway adds to a call, at a percentile: the difference of the percentiles."""
    return round(percentile(through, share) - percentile(beside, share), 3)


def _say(figures: Mapping[str, Any]) -> None:
    print(json.dumps(figures), file=sys.stderr, flush=True)


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--soak-calls", type=int, default=SOAK_CALLS)
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    machine = environment()
    # What reads the streams must not stop to look at its own modules, and call that a gap.
    gc.freeze()
    os.sched_setaffinity(0, {cores[LOAD_CORE % len(cores)]})
    figures = uvloop.run(measure(chosen.database, chosen.calls, chosen.soak_calls))
    print(json.dumps({"benchmark": "gateway", **machine, **figures}))


if __name__ == "__main__":
    main()
