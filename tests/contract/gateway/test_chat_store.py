"""What the store of chat promises, on every database that it runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.gateway.calls import ImagePart, Parameters, TextPart
from services.gateway.chat.sessions import ChatSession, StreamPart, TurnLost, TurnState
from services.gateway.chunks import Read, TextDelta
from services.gateway.event_codec import encode_reads
from services.gateway.store import chat_tables
from services.gateway.store.chats import ChatLimits, SqlChatStore
from services.runtime.clock import ManualClock
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, OutOfRange, ResourceExhausted, WrongState
from tests.support.databases import schema_differences

OpenDatabase = Callable[..., Awaitable[Database]]

PARAMETERS = Parameters(temperature=0.5, stop=("END",), provider_options={"a": [1, "x", True]})
SESSION = ChatSession("chat_1", "usr_1", "a title", "mock/small", "Be short.", PARAMETERS, 1_000)
HELLO = (TextPart("Hello"), ImagePart(data=b"\x00\xff", media_type="image/png"))
LIMITS = ChatLimits(sessions_max=3, turns_max=3, alive_for_s=20.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(open_database: OpenDatabase, clock: ManualClock) -> Database:
    return await open_database("gateway", migrations="services.gateway.migrations", clock=clock)


@pytest.fixture
async def store(database: Database) -> SqlChatStore:
    made = SqlChatStore(database, LIMITS, lambda turn: b"lost " + turn.turn_id.encode())
    await made.create("prj_1", SESSION, "")
    return made


def reads(text: str) -> bytes:
    return encode_reads([Read("a/1", 5, [TextDelta(text)])])


async def test_migrations_equal_tables(database: Database) -> None:
    assert await schema_differences(database, chat_tables.metadata) == []


async def test_sessions_are_made_got_listed_and_deleted_within_their_project(
    store: SqlChatStore, clock: ManualClock
) -> None:
    for number in (2, 3):
        clock.advance(1)
        await store.create("prj_1", ChatSession(f"chat_{number}", "", "", "m", "", Parameters(), 5), "")
    made = await store.get("prj_1", "chat_1")
    assert (made.parameters, made.title, made.turns) == (PARAMETERS, "a title", 0)
    page = await store.list("prj_1", None, 2)
    assert [session.session_id for session in page] == ["chat_3", "chat_2"]
    rest = await store.list("prj_1", (page[-1].created_us, page[-1].session_id), 2)
    assert [session.session_id for session in rest] == ["chat_1"]
    assert await store.list("prj_2", None, 2) == []
    with pytest.raises(NotFound):
        await store.get("prj_2", "chat_1")
    with pytest.raises(NotFound):
        await store.delete("prj_2", "chat_1")
    with pytest.raises(ResourceExhausted):
        await store.create("prj_1", ChatSession("chat_4", "", "", "m", "", Parameters(), 5), "")
    await store.delete("prj_1", "chat_1")
    with pytest.raises(NotFound):
        await store.turns("prj_1", "chat_1", 0, 10)


async def test_a_repeated_request_gives_the_first_session(store: SqlChatStore) -> None:
    first = await store.create("prj_1", ChatSession("chat_a", "", "t", "m", "", Parameters(), 5), "r1")
    again = await store.create("prj_1", ChatSession("chat_b", "", "t", "m", "", Parameters(), 5), "r1")
    assert again == first
    with pytest.raises(AlreadyExists):
        await store.create("prj_1", ChatSession("chat_b", "", "other", "m", "", Parameters(), 5), "r1")


async def test_a_turn_is_kept_as_it_comes_and_followed_from_any_sequence(store: SqlChatStore) -> None:
    begun = await store.begin("prj_1", "chat_1", "t1", HELLO)
    assert [message.role for message in begun.messages] == ["system", "user"]
    for sequence in (1, 2, 3):
        await store.append(begun.turn, StreamPart(sequence, reads(str(sequence))))
    turn, parts = await store.follow("prj_1", "chat_1", "t1", 1, 10)
    assert (turn.state, turn.question, turn.last_sequence) == (TurnState.RUNNING, HELLO, 3)
    assert parts == [StreamPart(2, reads("2")), StreamPart(3, reads("3"))]
    await store.end(turn, TurnState.COMPLETED, (TextPart("123"),), b"outcome")
    (listed,) = await store.turns("prj_1", "chat_1", 0, 10)
    assert (listed.state, listed.answer, listed.outcome) == (TurnState.COMPLETED, (TextPart("123"),), b"outcome")
    with pytest.raises(NotFound):
        await store.follow("prj_2", "chat_1", "t1", 0, 10)


async def test_one_turn_at_a_time_and_a_repeat_is_the_same_turn(store: SqlChatStore) -> None:
    outcomes = await asyncio.gather(
        *(store.begin("prj_1", "chat_1", f"t{number}", HELLO) for number in range(5)), return_exceptions=True
    )
    begun = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(begun) == 1
    assert sum(isinstance(outcome, WrongState) for outcome in outcomes) == 4
    again = await store.begin("prj_1", "chat_1", begun[0].turn.turn_id, HELLO)
    assert (again.repeated, again.turn) == (True, begun[0].turn)
    with pytest.raises(AlreadyExists):
        await store.begin("prj_1", "chat_1", begun[0].turn.turn_id, (TextPart("something else"),))


async def test_only_completed_turns_are_sent_along_and_only_the_latest_keeps_its_stream(store: SqlChatStore) -> None:
    for number, state in enumerate((TurnState.COMPLETED, TurnState.FAILED)):
        turn = (await store.begin("prj_1", "chat_1", f"t{number}", (TextPart(f"q{number}"),))).turn
        await store.append(turn, StreamPart(1, reads("x")))
        await store.end(turn, state, (TextPart(f"a{number}"),), b"outcome")
    third = await store.begin("prj_1", "chat_1", "t2", (TextPart("q2"),))
    assert [message.text for message in third.messages] == ["Be short.", "q0", "a0", "q2"]
    assert third.turn.history_turns == 1
    with pytest.raises(OutOfRange):
        await store.follow("prj_1", "chat_1", "t1", 0, 10)
    turn, parts = await store.follow("prj_1", "chat_1", "t1", 1, 10)
    assert (turn.state, parts) == (TurnState.FAILED, [])
    await store.end(third.turn, TurnState.COMPLETED, (), b"")
    with pytest.raises(ResourceExhausted):
        await store.begin("prj_1", "chat_1", "t3", HELLO)


async def test_a_lost_turn_is_given_up_with_what_was_kept(store: SqlChatStore, clock: ManualClock) -> None:
    turn = (await store.begin("prj_1", "chat_1", "t1", HELLO)).turn
    await store.append(turn, StreamPart(1, reads("half an ")))
    clock.advance(15)
    assert await store.show_life(turn) is False
    clock.advance(15)
    await store.give_up(turn)  # it showed life meanwhile
    assert not (await store.follow("prj_1", "chat_1", "t1", 0, 10))[0].lost
    clock.advance(10)
    lost, _ = await store.follow("prj_1", "chat_1", "t1", 0, 10)
    assert lost.lost
    await store.begin("prj_1", "chat_1", "t2", HELLO)
    given_up, _ = await store.turns("prj_1", "chat_1", 0, 10)
    assert (given_up.state, given_up.answer, given_up.outcome) == (
        TurnState.FAILED,
        (TextPart("half an "),),
        b"lost t1",
    )
    with pytest.raises(TurnLost):
        await store.append(turn, StreamPart(2, reads("answer")))
    await store.end(turn, TurnState.COMPLETED, (TextPart("late"),), b"late")
    assert (await store.turns("prj_1", "chat_1", 0, 1))[0].outcome == b"lost t1"
    assert (await store.get("prj_1", "chat_1")).running_turn_id == "t2"


async def test_cancelling_is_told_to_the_one_that_runs_the_turn(store: SqlChatStore) -> None:
    turn = (await store.begin("prj_1", "chat_1", "t1", HELLO)).turn
    assert await store.cancel("prj_1", "chat_1", "t1")
    assert await store.show_life(turn) is True
    await store.end(turn, TurnState.CANCELLED, (), b"")
    assert not await store.cancel("prj_1", "chat_1", "t1")


async def test_a_deleted_sessions_turn_is_lost(store: SqlChatStore) -> None:
    turn = (await store.begin("prj_1", "chat_1", "t1", HELLO)).turn
    await store.append(turn, StreamPart(1, reads("x")))
    await store.delete("prj_1", "chat_1")
    with pytest.raises(TurnLost):
        await store.show_life(turn)
