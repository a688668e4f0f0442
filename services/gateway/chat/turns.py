"""Runs turns, and lets them be followed.

A turn belongs to the gateway, not to the stream that asked for it: it runs to its end, is kept as it comes, and is
followed, also by whoever asked, from what is kept. So every follower sees the same, on any replica.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from services.gateway.admission import Admission
from services.gateway.attempts import CallOutcome, Completion, FailedCall
from services.gateway.calls import Call, Owner, Part, TextPart, Tool
from services.gateway.chat.sessions import BegunTurn, ChatStore, StreamPart, Turn, TurnLost, TurnState
from services.gateway.chunks import Read
from services.gateway.collector import Collector
from services.gateway.event_codec import encode_reads
from services.gateway.failures import Failure, refused
from services.gateway.pipeline import Pipeline
from services.runtime.errors import DomainError
from services.runtime.hints import Hints
from services.runtime.ids import new_id
from services.runtime.tracing import current_traceparent

_log = logging.getLogger(__name__)

Seal = Callable[[CallOutcome], bytes]
"""Encodes an outcome as the contract does."""


@dataclass(frozen=True, slots=True)
class ChatRules:
    """Bounds of turns.

    Attributes:
        turns_max: turns under way in this process.
        waiting_reads_max: reads that wait to be kept; the provider is read no faster.
        life_s: how often a running turn shows life, and looks whether it is to be stopped.
        poll_s: how often a follower looks where nobody hints at news.
        page_parts: parts that a follower reads at once.
    """

    turns_max: int = 1_000
    waiting_reads_max: int = 256
    life_s: float = 5.0
    poll_s: float = 0.5
    page_parts: int = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and how it is to be answered. `timeout_ms` counts from the turn's beginning."""

    parts: tuple[Part, ...]
    timeout_ms: int
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""


class ChatTurns:
    """Turns of this process, and the streams of turns of all."""

    def __init__(
        self, store: ChatStore, pipeline: Pipeline, admission: Admission, hints: Hints, seal: Seal, rules: ChatRules
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._admission = admission
        self._hints = hints
        self._seal = seal
        self._rules = rules
        self._running: dict[str, tuple[Owner, asyncio.Task[None]]] = {}

    async def begin(self, owner: Owner, session_id: str, turn_id: str, asked: Asked) -> Turn:
        """Begin a turn, which then runs by itself; one that the same request began before is left alone.

        Raises CallFailed(OVERLOADED), not dispatched, and DomainError as ChatStore.begin does.
        """
        if len(self._running) >= self._rules.turns_max:
            message = f"this gateway has {self._rules.turns_max} chat turns under way, which is its limit; try again"
            raise refused("OVERLOADED", message)
        # A caller who leaves meanwhile must not leave a turn behind that nobody runs.
        beginning = asyncio.create_task(self._begin(owner, session_id, turn_id, asked))
        return await asyncio.shield(beginning)

    async def _begin(self, owner: Owner, session_id: str, turn_id: str, asked: Asked) -> Turn:
        begun = await self._store.begin(owner.project_id, session_id, turn_id, asked.parts)
        if not begun.repeated:
            call_id = begun.turn.call_id
            # It outlives the RPC that asked for it, whose deadline is not its own.
            running = self._run(begun, owner, asked, current_traceparent())
            task = asyncio.create_task(running, name=call_id, context=contextvars.Context())
            self._running[call_id] = (owner, task)
            task.add_done_callback(lambda _: self._running.pop(call_id, None))
        return begun.turn

    async def delete(self, owner: Owner, session_id: str) -> None:
        """Forget a session; a turn of it that runs is stopped, whichever replica runs it."""
        session = await self._store.get(owner.project_id, session_id)
        await self._store.delete(owner.project_id, session_id)
        if session.running_turn_id:
            self._hints.publish(_cancel_topic(session_id, session.running_turn_id))

    async def cancel(self, owner: Owner, session_id: str, turn_id: str) -> bool:
        """Stop a turn, whichever replica runs it; returns whether it was running."""
        running = await self._store.cancel(owner.project_id, session_id, turn_id)
        self._hints.publish(_cancel_topic(session_id, turn_id))
        return running

    async def follow(
        self, owner: Owner, session_id: str, turn_id: str, after: int
    ) -> AsyncIterator[tuple[Turn, list[StreamPart]]]:
        """What is kept of a turn's stream after a sequence, and what comes; ends after the turn's end was given."""
        with self._hints.subscribe(_topic(session_id, turn_id)) as news:
            while True:
                turn, parts = await self._store.follow(
                    owner.project_id, session_id, turn_id, after, self._rules.page_parts
                )
                if parts:
                    after = parts[-1].sequence
                ended = turn.state is not TurnState.RUNNING and after >= turn.last_sequence
                if parts or ended:
                    yield turn, list(parts)
                if ended:
                    return
                if turn.lost:
                    await self._store.give_up(turn)
                elif not parts:
                    await news.wait(self._rules.poll_s)

    async def close(self) -> None:
        """Stop the turns that run here; each is settled and kept as far as it came."""
        for owner, task in list(self._running.values()):
            if not self._admission.cancel(owner, [task.get_name()]):
                task.cancel()
        if tasks := [task for _, task in self._running.values()]:
            await asyncio.wait(tasks)

    async def _run(self, begun: BegunTurn, owner: Owner, asked: Asked, traceparent: str) -> None:
        turn = begun.turn
        call = Call(
            call_id=turn.call_id,
            model=begun.session.model,
            messages=tuple(begun.messages),
            timeout_ms=asked.timeout_ms,
            parameters=begun.session.parameters,
            tools=asked.tools,
            tool_choice=asked.tool_choice,
            dispatch_nonce=new_id("nonce"),
            traceparent=traceparent,
        )
        keeping = _Keeping(turn, self._store, self._hints, self._rules.waiting_reads_max)
        life = asyncio.create_task(self._show_life(turn, owner), name=f"life of {turn.call_id}")
        try:
            outcome = await self._pipeline.run(call, owner, keeping.emit)
            await keeping.finish()
            await self._store.end(turn, _state_of(outcome), keeping.answer(outcome), self._seal(outcome))
        except (TurnLost, DomainError) as error:
            _log.warning("chat turn %s is not kept to its end: %s", turn.call_id, error)
        finally:
            life.cancel()
            await keeping.close()
            self._hints.publish(_topic(turn.session_id, turn.turn_id))

    async def _show_life(self, turn: Turn, owner: Owner) -> None:
        """Show that the turn is run, and stop it when somebody wants that, or when it is not ours any more."""
        with self._hints.subscribe(_cancel_topic(turn.session_id, turn.turn_id)) as wanted:
            stop = False
            while not stop:
                await wanted.wait(self._rules.life_s)
                try:
                    stop = await self._store.show_life(turn)
                except TurnLost:
                    stop = True
                except DomainError as error:
                    _log.warning("chat turn %s cannot show life: %s", turn.call_id, error)
        self._admission.cancel(owner, [turn.call_id])


class _Keeping:
    """Keeps what comes: one write at a time, each with all that came during the last one."""

    def __init__(self, turn: Turn, store: ChatStore, hints: Hints, waiting_max: int) -> None:
        self._turn = turn
        self._store = store
        self._hints = hints
        self._waiting_max = waiting_max
        self._waiting: list[Read] = []
        self._collector = Collector()
        self._sequence = 0
        self._writing: asyncio.Task[None] | None = None

    async def emit(self, read: Read) -> None:
        """See chunks.Emit. Raises TurnLost and DomainError where it cannot be kept."""
        self._waiting.append(read)
        self._collector.add(read.events)
        if self._writing is not None and self._writing.done():
            self._writing.result()
            self._writing = None
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name=f"keeping {self._turn.call_id}")
        elif len(self._waiting) >= self._waiting_max:
            await asyncio.shield(self._writing)

    async def finish(self) -> None:
        """Keep the rest."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def close(self) -> None:
        """Nothing is written any more."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    def answer(self, outcome: CallOutcome) -> tuple[Part, ...]:
        """The answer, or as much of it as came."""
        if isinstance(outcome, Completion):
            return outcome.parts
        text = self._collector.text()
        return (TextPart(text),) if text else ()

    async def _write(self) -> None:
        while self._waiting:
            reads, self._waiting = self._waiting, []
            self._sequence += 1
            await self._store.append(self._turn, StreamPart(self._sequence, encode_reads(reads)))
            self._hints.publish(_topic(self._turn.session_id, self._turn.turn_id))


def _topic(session_id: str, turn_id: str) -> str:
    return f"chat:{session_id}:{turn_id}"


def _cancel_topic(session_id: str, turn_id: str) -> str:
    return f"chat-cancel:{session_id}:{turn_id}"


def _state_of(outcome: CallOutcome) -> TurnState:
    if isinstance(outcome, Completion):
        return TurnState.COMPLETED
    return TurnState.CANCELLED if outcome.failure.reason == "CANCELLED" else TurnState.FAILED


def lost_outcome(turn: Turn) -> FailedCall:
    """How the call of a lost turn counts."""
    message = "the gateway that ran this turn was lost; what it had kept of the answer is in the turn: ask again"
    return FailedCall(turn.call_id, Failure("STREAM_TRUNCATED", message, dispatched=True, output_began=True))
