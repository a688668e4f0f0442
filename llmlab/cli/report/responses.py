"""The answers, as data that the page's script shows as text: conversations in the order of their prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from llmlab.api.common.v1 import content_pb2, error_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import figures, money
from llmlab.cli.plain import enum_name
from llmlab.cli.report.markup import json_block
from llmlab.cli.tables import parameters_text

BLOCK_RESULTS = 100


class ResponseBlocks:
    """Turns results, in the order of their cells, into blocks of data; a prompt is written once for all its answers."""

    def __init__(self) -> None:
        self._conversation: tuple[str, int] | None = None
        self._conversations = 0
        self._new: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        self.written = 0

    async def blocks(self, results: AsyncIterator[run_pb2.Result], limit: int) -> AsyncIterator[str]:
        """Yields the blocks of the first `limit` results."""
        async for result in results:
            self._add(result)
            self.written += 1
            if len(self._entries) == BLOCK_RESULTS:
                yield self._taken()
            if self.written == limit:
                break
        if self._entries:
            yield self._taken()

    def _add(self, result: run_pb2.Result) -> None:
        conversation = (result.prompt_name, result.row_index)
        if conversation != self._conversation:
            self._conversation = conversation
            self._conversations += 1
            self._new.append({"prompt": result.prompt_name, "row": result.row_index, "messages": _messages(result)})
        self._entries.append(_entry(result, self._conversations - 1))

    def _taken(self) -> str:
        block = json_block({"conversations": self._new, "answers": self._entries})
        self._new, self._entries = [], []
        return block


def _messages(result: run_pb2.Result) -> list[dict[str, str]]:
    return [
        {"role": enum_name(content_pb2.Role.DESCRIPTOR, message.role).lower(), "text": parts_text(message.parts)}
        for message in result.request
    ]


def _entry(result: run_pb2.Result, conversation: int) -> dict[str, Any]:
    """An answer; numbers are there to sort by, texts to be shown."""
    entry: dict[str, Any] = {
        "in": conversation,
        "cell": result.cell_index,
        "model": result.model,
        "point": parameters_text(result.parameters),
        "repeat": result.repeat_index + 1,
        "state": enum_name(run_pb2.CellStatus.DESCRIPTOR, result.status).lower(),
        "text": parts_text(result.response),
        "latency": result.timing.latency_us,
        "cost": result.cost.cost_nano_usd,
        "facts": _facts(result),
        "scores": {score.name: round(score.value, 4) for score in result.scores if score.HasField("value")},
        "brands": [brand.brand for brand in result.brands],
    }
    if result.HasField("error"):
        reason = enum_name(error_pb2.ErrorReason.DESCRIPTOR, result.error.reason)
        entry["error"] = f"{reason}: {result.error.message}"
    return entry


def _facts(result: run_pb2.Result) -> str:
    facts = [f"cell {result.cell_index}"]
    if result.timing.latency_us:
        facts.append(figures.milliseconds(result.timing.latency_us))
    if result.timing.HasField("ttft_output_us"):
        facts.append(f"first token {figures.milliseconds(result.timing.ttft_output_us)}")
    facts += [f"{figures.tokens(result.usage)} tokens", money.cost(result.cost)]
    if result.attempts > 1:
        facts.append(f"{result.attempts} attempts")
    if result.finish_reason:
        facts.append(enum_name(gateway_pb2.FinishReason.DESCRIPTOR, result.finish_reason).lower())
    return " · ".join(facts)


def parts_text(parts: Iterable[content_pb2.ContentPart]) -> str:
    """What is said, as text: tool calls as the model wrote them, pictures by their kind."""
    return "\n".join(filter(None, map(_part_text, parts)))


def _part_text(part: content_pb2.ContentPart) -> str:
    match part.WhichOneof("kind"):
        case "text":
            return part.text
        case "tool_call":
            return f"[tool {part.tool_call.name}] {part.tool_call.arguments_json}"
        case "tool_result":
            return f"[tool result] {part.tool_result.text}"
        case "reasoning":
            return f"[reasoning] {part.reasoning.text}" if part.reasoning.text else ""
        case "image":
            return f"[picture {part.image.media_type}]"
        case _:
            return ""
