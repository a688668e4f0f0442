"""Commands about single calls: chat, models."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from rich.table import Table

from llmlab.api.common.v1 import content_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.cli import figures, money
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, notes, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.client import Client, LlmlabError

CHAT_TEMPERATURE = 0.7
CHAT_OUTPUT_TOKENS_MAX = 10_000
CHAT_MESSAGES_MAX = 200


def chat(
    message: Annotated[str, typer.Argument(help="One message; without it, talk until an empty line.")] = "",
    model: Annotated[str, typer.Option(help="The model, as provider/model.")] = "mock/medium",
    system: Annotated[str, typer.Option(help="Instructions to the model.")] = "",
    temperature: Annotated[float, typer.Option(min=0, max=2, help="How random the answer is.")] = CHAT_TEMPERATURE,
    max_output_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, tokens.")] = CHAT_OUTPUT_TOKENS_MAX,
    as_json: AsJson = False,
) -> None:
    """Talk to a model; the answer appears as it arrives."""

    async def command() -> None:
        history = [_message(content_pb2.ROLE_SYSTEM, system)] if system else []
        async with connect() as client:
            text = message or await _ask()
            while text:
                history.append(_message(content_pb2.ROLE_USER, text))
                answer = await _turn(
                    client, model, history, as_json, temperature=temperature, max_output_tokens=max_output_tokens
                )
                history.append(_message(content_pb2.ROLE_ASSISTANT, answer or " "))
                if message:
                    return
                if len(history) >= CHAT_MESSAGES_MAX:
                    raise CommandError(f"This conversation has reached {CHAT_MESSAGES_MAX} messages.", EXIT_USAGE)
                text = await _ask()

    run_async(command())


def _message(role: content_pb2.Role.ValueType, text: str) -> content_pb2.Message:
    return content_pb2.Message(role=role, parts=[content_pb2.ContentPart(text=text)])


async def _ask() -> str:
    """Reads a line without holding up the services that may run in this process; an empty one, or the end, is ""."""
    if sys.stdin.isatty():
        notes.print("[bold]you>[/bold] ", end="")
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


async def _turn(
    client: Client,
    model: str,
    history: list[content_pb2.Message],
    as_json: bool,
    *,
    temperature: float,
    max_output_tokens: int,
) -> str:
    pieces: list[str] = []
    finished: gateway_pb2.Completion | None = None
    try:
        async for chunk in client.stream_complete(
            model, history, temperature=temperature, max_output_tokens=max_output_tokens
        ):
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
        print_json({"text": answer, **to_plain(finished)})
    elif finished is not None:
        console.out("")
        notes.print(_footnote(finished), style="dim", highlight=False)
    return answer


def _footnote(completion: gateway_pb2.Completion) -> str:
    timing = completion.timing
    parts = [completion.model, f"{figures.tokens(completion.usage)} tokens"]
    if timing.HasField("ttft_output_us"):
        parts.append(f"first token {figures.milliseconds(timing.ttft_output_us)}")
    parts.append(f"total {figures.milliseconds(timing.latency_us)}")
    parts.append(money.cost(completion.cost) if completion.HasField("cost") else "cost not confirmed yet")
    return " · ".join(parts)


def stands_for(model: gateway_pb2.Model) -> str:
    """What calls to an alias or a routed model go to, with the share of each place."""
    if model.alias_of:
        return model.alias_of
    total = sum(place.weight for place in model.deployments)
    return ", ".join(f"{place.model} {place.weight / total:.0%}" for place in model.deployments)


def models(
    provider: Annotated[str, typer.Option(help="Only those of this provider: openai, anthropic, mock ...")] = "",
    as_json: AsJson = False,
) -> None:
    """List the models that can be called."""

    async def command() -> None:
        async with connect() as client:
            found = [model async for model in client.list_models(provider)]
        if as_json:
            print_json([to_plain(model) for model in found])
            return
        table = Table(box=None, pad_edge=False)
        table.add_column("model")
        table.add_column("ready")
        table.add_column("stands for")
        for model in found:
            ready = "yes" if model.configured else f"set {model.missing_setting}"
            table.add_row(model.name, ready, stands_for(model))
        console.print(table)

    run_async(command())
