"""Commands about conversations: chat, and the sessions that are kept."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from llmlab.api.common.v1 import content_pb2
from llmlab.api.gateway.v1 import chat_pb2
from llmlab.cli import options
from llmlab.cli.answers import chunks_of, chunks_of_turn, show_answer
from llmlab.cli.app import EXIT_USAGE, AsJson, CommandError, console, hint, notes, run_async
from llmlab.cli.connection import connect
from llmlab.cli.plain import print_json, to_plain
from llmlab.client import Client

CHAT_MODEL = "mock/medium"
CHAT_TEMPERATURE = 0.7
CHAT_OUTPUT_TOKENS_MAX = 10_000
CHAT_MESSAGES_MAX = 200
NEW = "new"

Say = Callable[[str], Awaitable[None]]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session, chat_...")]

chats = typer.Typer(help="Chat sessions that are kept.", no_args_is_help=True)


def chat(
    message: Annotated[str, typer.Argument(help="One message; without it, talk until an empty line.")] = "",
    session: Annotated[
        str, typer.Option(metavar="SESSION", help="Go on with a kept session, chat_...; `new` begins one.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="First show the latest answer, also while it comes.")
    ] = False,
    model: Annotated[str, typer.Option(help=f"The model, as provider/model; {CHAT_MODEL} if left out.")] = "",
    system: Annotated[str, typer.Option(help="Instructions to the model.")] = "",
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help=f"How random the answer is; {CHAT_TEMPERATURE} if left out.")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(min=1, help=f"Longest answer, tokens; {CHAT_OUTPUT_TOKENS_MAX:,} if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a model; the answer appears as it arrives.

    Lines can be piped in: each is a message. A kept session (--session) can be left at any time and gone on with later.
    """
    kept = session not in ("", NEW)
    sampling: dict[str, Any] = {
        "temperature": CHAT_TEMPERATURE if temperature is None else temperature,
        "max_output_tokens": max_output_tokens or CHAT_OUTPUT_TOKENS_MAX,
    }

    async def command() -> None:
        if kept:
            given = {"model": model, "system": system, "temperature": temperature is not None}
            reason = "belongs to the beginning of a session, which this one has behind it"
            options.refuse(reason, **given, max_output_tokens=max_output_tokens)
        elif resume:
            raise CommandError("--resume needs the --session whose answer it shows.", EXIT_USAGE)
        async with connect() as client:
            if not session:
                await _talk(message, _unkept(client, model or CHAT_MODEL, system, sampling, as_json=as_json))
                return
            session_id = session
            if not kept:
                made = await client.create_chat_session(
                    model or CHAT_MODEL, system=system, title=message[:80], **sampling
                )
                session_id = made.session_id
                hint(f"Session {session_id}: go on with `llmlab chat --session {session_id}`.")
            if resume:
                await _resume(client, session_id, as_json=as_json)
            await _talk(message, _kept(client, session_id, as_json=as_json))

    run_async(command())


async def _talk(message: str, say: Say) -> None:
    """Says the message, or every line that is typed or piped in."""
    if message:
        await say(message)
        return
    while text := await _ask():
        await say(text)


def _unkept(client: Client, model: str, system: str, sampling: dict[str, Any], *, as_json: bool) -> Say:
    """A conversation that only this process knows."""
    history = [_message(content_pb2.ROLE_SYSTEM, system)] if system else []

    async def say(text: str) -> None:
        if len(history) >= CHAT_MESSAGES_MAX:
            raise CommandError(
                f"This conversation has reached {CHAT_MESSAGES_MAX} messages. `llmlab chat --session new` begins one "
                "that leaves the oldest out by itself.",
                EXIT_USAGE,
            )
        history.append(_message(content_pb2.ROLE_USER, text))
        answer = await show_answer(chunks_of(client.stream_complete(model, history, **sampling)), as_json=as_json)
        history.append(_message(content_pb2.ROLE_ASSISTANT, answer or " "))

    return say


def _kept(client: Client, session_id: str, *, as_json: bool) -> Say:
    """A conversation that the gateway keeps."""

    async def say(text: str) -> None:
        await _show_turn(client.send_chat_message(session_id, text), session_id, as_json=as_json)

    return say


async def _resume(client: Client, session_id: str, *, as_json: bool) -> None:
    """Shows the latest turn, from its beginning to its end."""
    latest = [turn async for turn in client.list_chat_turns(session_id)][-1:]
    if not latest:
        hint("The session has no messages yet.")
        return
    if not as_json:
        asked = " ".join(part.text for part in latest[0].question.parts if part.text)
        notes.print(f"you> {asked}", style="dim", highlight=False, markup=False)
    await _show_turn(client.watch_chat_turn(session_id, latest[0].turn_id), session_id, as_json=as_json)


async def _show_turn(stream: AsyncIterator[chat_pb2.ChatEvent], session_id: str, *, as_json: bool) -> None:
    await show_answer(chunks_of_turn(stream), as_json=as_json, session_id=session_id)


def _message(role: content_pb2.Role.ValueType, text: str) -> content_pb2.Message:
    return content_pb2.Message(role=role, parts=[content_pb2.ContentPart(text=text)])


async def _ask() -> str:
    """Reads a line without holding up the services that may run in this process; an empty one, or the end, is ""."""
    if sys.stdin.isatty():
        notes.print("[bold]you>[/bold] ", end="")
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


@chats.command(name="list", epilog="Example: llmlab chats list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Show at most so many.")] = 20, as_json: AsJson = False
) -> None:
    """List the sessions that are kept, the latest first."""

    async def command() -> None:
        found: list[chat_pb2.ChatSession] = []
        async with connect() as client:
            async for session in client.list_chat_sessions():
                found.append(session)
                if len(found) == limit:
                    break
        if as_json:
            print_json([to_plain(session) for session in found])
            return
        table = Table("session", "model", "turns", "begun (UTC)", "title", box=None, pad_edge=False)
        for session in found:
            begun = session.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M")
            table.add_row(session.session_id, session.model, str(session.turns), begun, session.title)
        console.print(table)

    run_async(command())


@chats.command(epilog="Example: llmlab chats show chat_01k9x3")
def show(session_id: SessionId, as_json: AsJson = False) -> None:
    """Show what was said in a session."""

    async def command() -> None:
        async with connect() as client:
            turns = [turn async for turn in client.list_chat_turns(session_id)]
        if as_json:
            print_json([to_plain(turn) for turn in turns])
            return
        for turn in turns:
            for who, said in (("you", turn.question), ("model", turn.answer)):
                text = " ".join(part.text for part in said.parts if part.text)
                console.print(f"{who}> {text}", markup=False, highlight=False, soft_wrap=True)
            if turn.HasField("error"):
                console.print(f"({turn.error.message})", markup=False, highlight=False, style="dim", soft_wrap=True)

    run_async(command())


@chats.command(epilog="Example: llmlab chats delete chat_01k9x3")
def delete(session_id: SessionId) -> None:
    """Delete a session with all its messages."""

    async def command() -> None:
        async with connect() as client:
            await client.delete_chat_session(session_id)
        notes.print(f"{session_id} is deleted.", highlight=False)

    run_async(command())
