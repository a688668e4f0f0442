"""What turns promise beside a slow database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.gateway.admission import Admission
from services.gateway.calls import Owner, Parameters, TextPart
from services.gateway.chat.sessions import ChatSession, StreamPart, Turn, TurnState
from services.gateway.chat.turns import Asked, ChatRules, ChatTurns
from services.gateway.chunks import Finished, FinishReason, Started, TextDelta
from services.gateway.event_codec import decode_reads
from services.gateway.store.chats import ChatLimits, SqlChatStore
from services.runtime.database import Database
from services.runtime.hints import LocalHints
from tests.support.gateway import OWNER, InMemoryLedger, ScriptedProvider, pipeline, text_of

OpenDatabase = Callable[..., Awaitable[Database]]

WAITING_MAX = 8
PIECES = 50


class Busy(SqlChatStore):
    """A store whose writes of a turn's stream wait until it is let go."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, ChatLimits(10, 10, 20.0), lambda _: b"lost")
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()

    async def append(self, turn: Turn, part: StreamPart) -> None:
        self.asked.set()
        await self.let_go.wait()
        await super().append(turn, part)


async def test_a_provider_is_read_no_faster_than_its_answer_is_kept(open_database: OpenDatabase) -> None:
    store = Busy(await open_database("gateway", migrations="services.gateway.migrations"))
    owner = Owner("prj_1", OWNER.user_id, OWNER.key_id)
    await store.create("prj_1", ChatSession("chat_1", "", "", "scripted/model", "", Parameters(), 1_000), "")
    given = 0

    class Counting(ScriptedProvider):
        async def stream(self, request, deadline):  # type: ignore[no-untyped-def]
            nonlocal given
            async for events in super().stream(request, deadline):
                given += 1
                yield events

    pieces = [[TextDelta(f"{number} ")] for number in range(PIECES)]
    provider = Counting([Started("m")], *pieces, [Finished(FinishReason.STOP)])
    pipe, admission = pipeline(provider, InMemoryLedger())
    turns = turns_of(store, pipe, admission)
    turn = await turns.begin(owner, "chat_1", "t1", Asked((TextPart("Count."),), 20_000))
    await store.asked.wait()
    for _ in range(20 * PIECES):
        await asyncio.sleep(0)
    # The read that is being kept, those that wait, and the one that the provider is stopped with.
    assert WAITING_MAX <= given <= WAITING_MAX + 2
    store.let_go.set()
    async with asyncio.timeout(20):
        followed = [found async for found in turns.follow(owner, "chat_1", turn.turn_id, 0)]
    assert followed[-1][0].state is TurnState.COMPLETED
    read = [part for _, parts in followed for part in parts]
    events = [event for part in read for one in decode_reads(part.reads) for event in one.events]
    assert text_of(events) == "".join(f"{number} " for number in range(PIECES))
    # What came while one part was written is one part.
    assert len(read) < PIECES / 2
    await turns.close()


def turns_of(store: SqlChatStore, pipe: object, admission: Admission) -> ChatTurns:
    rules = ChatRules(waiting_reads_max=WAITING_MAX, poll_s=0.01)
    return ChatTurns(store, pipe, admission, LocalHints(), lambda _: b"sealed", rules)  # type: ignore[arg-type]
