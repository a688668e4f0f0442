"""Commands about single calls: complete, models."""

from __future__ import annotations

import mimetypes
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from llmlab.api.common.v1 import content_pb2
from llmlab.api.gateway.v1 import gateway_pb2
from llmlab.cli.answers import chunks_of, show_answer
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain

_URLS = ("http://", "https://", "data:")


class Cache(Enum):
    """What a call does about kept answers."""

    USE = "use"
    REFRESH = "refresh"
    OFF = "off"


class Effort(Enum):
    """How hard a model thinks."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


def complete(
    prompt: Annotated[str, typer.Argument(help="The prompt; without it, or as -, standard input is read.")] = "-",
    model: Annotated[str, typer.Option(help="The model, as provider/model.")] = "mock/medium",
    system: Annotated[str, typer.Option(help="Instructions to the model.")] = "",
    image: Annotated[list[str] | None, typer.Option(help="A picture, by file or URL; may be repeated.")] = None,
    schema: Annotated[Path | None, typer.Option(help="File with the JSON schema that the answer follows.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="How random the answer is.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Nucleus sampling.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable where the provider can.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, tokens.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer; may be repeated.")] = None,
    effort: Annotated[Effort | None, typer.Option(help="How hard to think.")] = None,
    cache: Annotated[Cache | None, typer.Option(help="Kept answers: use, refresh, off.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model once; the answer appears as it arrives."""
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise typer.BadParameter("there is no prompt: give one, or pipe one in", param_hint="PROMPT")

    async def command() -> None:
        messages = [_message(content_pb2.ROLE_SYSTEM, [content_pb2.ContentPart(text=system)])] if system else []
        parts = [content_pb2.ContentPart(text=text), *(image_part(source) for source in image or ())]
        messages.append(_message(content_pb2.ROLE_USER, parts))
        async with connect() as client:
            stream = client.stream_complete(
                model,
                messages,
                json_schema=_text_of(schema) if schema else "",
                cache=None if cache is None else gateway_pb2.CacheControl(mode=_cache_mode(cache)),
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                max_output_tokens=max_output_tokens,
                stop=stop,
                reasoning_effort=None if effort is None else effort.value,
            )
            await show_answer(chunks_of(stream), as_json=as_json)

    run_async(command())


def image_part(source: str) -> content_pb2.ContentPart:
    """Returns a picture for a message, from a URL or a file."""
    if source.startswith(_URLS):
        return content_pb2.ContentPart(image=content_pb2.Image(url=source))
    media_type = mimetypes.guess_type(source)[0] or ""
    if not media_type.startswith("image/"):
        raise CommandError(f"--image: {source} is not named like a picture (.png, .jpg, .webp, .gif).", EXIT_USAGE)
    try:
        data = Path(source).expanduser().read_bytes()
    except OSError as error:
        raise CommandError(f"--image: {source} can't be read: {error.strerror}.", EXIT_USAGE) from error
    return content_pb2.ContentPart(image=content_pb2.Image(data=data, media_type=media_type))


def _message(role: content_pb2.Role.ValueType, parts: list[content_pb2.ContentPart]) -> content_pb2.Message:
    return content_pb2.Message(role=role, parts=parts)


def _text_of(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--schema: {file} can't be read: {error}.", EXIT_USAGE) from error


def _cache_mode(cache: Cache) -> gateway_pb2.CacheMode.ValueType:
    return gateway_pb2.CacheMode.Value(f"CACHE_MODE_{cache.name}")


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
        if provider and not found:
            message = f"{provider!r} has no models; `llmlab providers` lists the names"
            raise typer.BadParameter(message, param_hint="--provider")
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
