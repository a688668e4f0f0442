"""Showing an answer as it arrives, and what it took."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from llmlab.api.gateway.v1 import chat_pb2, gateway_pb2
from llmlab.cli import figures, money
from llmlab.cli.app import console, notes
from llmlab.cli.plain import print_json, to_plain
from llmlab.client import LlmlabError

Chunks = AsyncIterator[Iterable[gateway_pb2.Chunk]]


async def chunks_of(stream: AsyncIterator[gateway_pb2.Chunk]) -> Chunks:
    """Yields the chunks of a completion one by one."""
    async for chunk in stream:
        yield (chunk,)


async def chunks_of_turn(stream: AsyncIterator[chat_pb2.ChatEvent]) -> Chunks:
    """Yields the chunks of a chat turn as they come."""
    async for event in stream:
        yield event.chunks


async def show_answer(chunks: Chunks, *, as_json: bool, **more: str) -> str:
    """Shows an answer; with `as_json` one object at its end, with `more` in it. Returns the text.

    Tool calls and reasoning are shown as JSON only.
    """
    pieces: list[str] = []
    finished: gateway_pb2.Completion | None = None
    try:
        async for together in chunks:
            for chunk in together:
                if chunk.WhichOneof("event") == "text":
                    pieces.append(chunk.text)
                    if not as_json:
                        console.out(chunk.text, end="", highlight=False)
                elif chunk.HasField("finished"):
                    finished = chunk.finished
    except LlmlabError:
        if pieces and not as_json:
            console.out("")
        raise
    answer = "".join(pieces)
    if as_json and finished is not None:
        print_json({"text": answer, **more, **to_plain(finished)})
    elif finished is not None:
        console.out("")
        notes.print(footnote(finished), style="dim", highlight=False)
    return answer


def footnote(completion: gateway_pb2.Completion) -> str:
    """Returns what an answer took, in a line."""
    timing = completion.timing
    parts = [completion.model, f"{figures.tokens(completion.usage)} tokens"]
    if completion.HasField("reuse"):
        kept = completion.reuse.source == gateway_pb2.REUSE_SOURCE_CACHE
        parts.append("from the cache" if kept else "shared with an equal call")
        parts.append(f"total {figures.milliseconds(completion.reuse.latency_us)}")
    else:
        if timing.HasField("ttft_output_us"):
            parts.append(f"first token {figures.milliseconds(timing.ttft_output_us)}")
        parts.append(f"total {figures.milliseconds(timing.latency_us)}")
    parts.append(money.cost(completion.cost) if completion.HasField("cost") else "cost not confirmed yet")
    return " · ".join(parts)
