"""The load on a gateway, and what its callers see of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import grpc
import orjson

from bench.http2_streams import Http2Streams, Stream
from llmlab.api.common.v1 import content_pb2, value_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

if TYPE_CHECKING:
    from llmlab.api.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub

MODEL = "upstream/bench"
TOKENS_PER_S = 50
CLEAN_GAP_MS = 40.0
"""The p99 of the gaps between tokens that a clean stream stays below; they leave the provider 20 ms apart."""

Call = Callable[[], Awaitable[Any]]


_STREAM_COMPLETE = "/llmlab.api.gateway.v1.GatewayService/StreamComplete"


class Arrival(NamedTuple):
    """A message with text: when it came, and how many tokens it brought."""

    at_s: float
    tokens: int


class StreamFigures(NamedTuple):
    """What the readers of concurrent streams saw."""

    tokens: int
    messages: int
    gap_p99_ms: float

    @property
    def tokens_per_message(self) -> float:
        """How many tokens a message brought, on average."""
        return round(self.tokens / self.messages, 3)

    @property
    def clean(self) -> bool:
        """Whether no reader would notice the gateway."""
        return self.gap_p99_ms < CLEAN_GAP_MS


class Load:
    """Calls that are all different, so that the cache is looked at and never answers."""

    def __init__(
        self, channel: grpc.aio.Channel, address: str, metadata: Callable[[], tuple[tuple[str, str], ...]]
    ) -> None:
        """`channel` leads to `address`; `metadata` gives a credential that is valid now."""
        self._address = address
        self._stub: GatewayServiceAsyncStub = GatewayServiceStub(channel)
        self._metadata = metadata
        self._numbers = itertools.count()

    async def complete(self) -> None:
        """One unary call of one token, by a caller who skips the cost."""
        await self._complete(skip_cost=True)

    async def complete_with_cost(self) -> None:
        """The same by a caller who waits for the settlement."""
        await self._complete(skip_cost=False)

    async def cancelled(self, after_s: float) -> None:
        """One stream that is left after a while."""
        call = self._call(10 * TOKENS_PER_S, 1_000 // TOKENS_PER_S)
        stream = self._stub.StreamComplete(gateway_pb2.StreamCompleteRequest(call=call), metadata=self._metadata())
        await asyncio.sleep(after_s)
        stream.cancel()

    async def streams(self, count: int, seconds: float) -> StreamFigures:
        """So many streams at once, begun at random distances within a token's time, of `seconds` each."""
        connection = await Http2Streams.connect(self._address)

        async def read(number: int) -> list[Arrival]:
            await asyncio.sleep(number / count / TOKENS_PER_S)
            call = self._call(round(seconds * TOKENS_PER_S), 1_000 // TOKENS_PER_S)
            request = gateway_pb2.StreamCompleteRequest(call=call)
            stream = connection.begin(_STREAM_COMPLETE, self._metadata(), request.SerializeToString())
            await asyncio.wait_for(stream.ended, seconds * 5 + 30)
            return arrivals(stream)

        try:
            read_streams = await asyncio.gather(*[read(number) for number in range(count)])
        finally:
            connection.close()
        tokens = sum(arrival.tokens for stream in read_streams for arrival in stream)
        if tokens != count * round(seconds * TOKENS_PER_S):
            raise SystemExit(f"{count} streams brought {tokens} tokens")
        gaps_ms = [
            (later.at_s - earlier.at_s) * 1_000
            for stream in read_streams
            for earlier, later in itertools.pairwise(stream)
        ]
        return StreamFigures(tokens, sum(map(len, read_streams)), percentile(gaps_ms, 0.99))

    async def _complete(self, *, skip_cost: bool) -> None:
        request = gateway_pb2.CompleteRequest(call=self._call(1, 0), skip_cost=skip_cost)
        await self._stub.Complete(request, metadata=self._metadata(), timeout=30)

    def _call(self, tokens: int, interval_ms: int) -> gateway_pb2.Call:
        text = f"Question {next(self._numbers)} of a benchmark, which has about as many words as questions have."
        return gateway_pb2.Call(
            model=MODEL,
            messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.ContentPart(text=text)])],
            parameters=gateway_pb2.Parameters(
                temperature=0,
                max_output_tokens=tokens,
                provider_options={"interval_ms": value_pb2.Value(int_value=interval_ms)},
            ),
        )


class Direct:
    """The same unary call, without any gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def complete(self) -> None:
        """One POST, read to its end."""
        body = orjson.dumps({"messages": [{"role": "user", "content": "Question"}], "max_tokens": 1})
        async with self._session.post(self._url, data=body) as answer:
            await answer.read()


def arrivals(stream: Stream) -> list[Arrival]:
    """The messages of a stream that brought text."""
    found = []
    for at_s, message in stream.messages:
        chunks = gateway_pb2.StreamCompleteResponse.FromString(message).chunks
        if tokens := sum(1 for chunk in chunks if chunk.text):
            found.append(Arrival(at_s, tokens))
    return found


async def latencies_ms(call: Call, calls: int, concurrency: int) -> list[float]:
    """Makes so many calls, so many at a time; how long each took."""
    taken: list[float] = []
    numbers = iter(range(calls))

    async def work() -> None:
        for _ in numbers:
            began = time.perf_counter()
            await call()
            taken.append((time.perf_counter() - began) * 1_000)

    await asyncio.gather(*[work() for _ in range(concurrency)])
    return taken


async def in_turn(first: Call, second: Call, calls: int) -> tuple[list[float], list[float]]:
    """One call at a time, of one kind and of the other by turns, so that both meet the same machine."""
    pairs = [(await latencies_ms(first, 1, 1), await latencies_ms(second, 1, 1)) for _ in range(calls)]
    return [one for pair in pairs for one in pair[0]], [one for pair in pairs for one in pair[1]]


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
