"""Chat over gRPC on two replicas with one database, beside a real cost service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from llmlab.api.common.v1 import content_pb2, error_pb2
from llmlab.api.gateway.v1 import chat_pb2, chat_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from llmlab.client import Client, Endpoints, LlmlabError
from services.gateway import wiring as gateway_wiring
from services.gateway.settings import GatewaySettings
from services.runtime.server import RunningServer
from tests.support.gateway_rpc import Caller, options, refusal_of, token_of

ANSWER = "one two three four five"


@dataclass
class Chatter:
    """Somebody in prj_1 who chats through one replica."""

    stub: Any
    address: str

    async def create(self, **fields: Any) -> chat_pb2.ChatSession:
        fields.setdefault("parameters", options(text=ANSWER, ttft_ms=1.0, tokens_per_second=1_000.0, chunk_size=1))
        request = chat_pb2.CreateChatSessionRequest(model="mock/small", **fields)
        session: chat_pb2.ChatSession = (await self.stub.CreateChatSession(request, metadata=token_of())).session
        return session

    def send(self, session_id: str, text: str = "Count.", turn_id: str = "") -> Any:
        parts = [content_pb2.ContentPart(text=text)]
        request = chat_pb2.SendChatMessageRequest(session_id=session_id, turn_id=turn_id, parts=parts)
        return self.stub.SendChatMessage(request, metadata=token_of())

    def watch(self, session_id: str, turn_id: str, after: int = 0) -> Any:
        request = chat_pb2.WatchChatTurnRequest(session_id=session_id, turn_id=turn_id, after_sequence=after)
        return self.stub.WatchChatTurn(request, metadata=token_of())

    async def turns(self, session_id: str) -> list[chat_pb2.ChatTurn]:
        request = chat_pb2.ListChatTurnsRequest(session_id=session_id)
        return list((await self.stub.ListChatTurns(request, metadata=token_of())).turns)


async def events_of(stream: Any) -> list[chat_pb2.ChatEvent]:
    return [message.event async for message in stream]


def text_of(events: list[chat_pb2.ChatEvent]) -> str:
    return "".join(chunk.text for event in events for chunk in event.chunks)


@pytest.fixture
def chat_settings(settings: GatewaySettings) -> GatewaySettings:
    return settings.model_copy(update={"chat_history": True, "chat_poll_ms": 20, "chat_alive_s": 4.0})


@pytest.fixture
async def replicas(chat_settings: GatewaySettings) -> AsyncIterator[tuple[Chatter, Chatter]]:
    async with (
        gateway_wiring.build(chat_settings, environ={}) as one,
        gateway_wiring.build(chat_settings, environ={}) as other,
        grpc.aio.insecure_channel(one.address) as first,
        grpc.aio.insecure_channel(other.address) as second,
    ):
        yield (
            Chatter(chat_pb2_grpc.ChatServiceStub(first), one.address),
            Chatter(chat_pb2_grpc.ChatServiceStub(second), other.address),
        )


@pytest.fixture
async def books(cost: RunningServer) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(cost.address) as costs:
        yield Caller(gateway_pb2_grpc.GatewayServiceStub(costs), costs)


async def test_a_turn_left_after_every_part_is_picked_up_elsewhere_with_the_same_text_and_one_bill(
    replicas: tuple[Chatter, Chatter], books: Caller
) -> None:
    here, there = replicas
    session = await here.create()
    whole = await events_of(here.send(session.session_id, turn_id="t0"))
    assert text_of(whole) == ANSWER
    assert [event.sequence for event in whole] == list(range(len(whole)))
    finished = whole[-1].chunks[-1].finished
    assert finished.finish_reason == gateway_pb2.FINISH_REASON_STOP
    for cut in range(len(whole)):
        turn_id = f"t{cut + 1}"
        stream = here.send(session.session_id, turn_id=turn_id)
        seen: list[chat_pb2.ChatEvent] = []
        async for message in stream:
            seen.append(message.event)
            if len(seen) > cut:
                break
        stream.cancel()
        rest = await events_of(there.watch(session.session_id, turn_id, seen[-1].sequence))
        assert text_of(seen) + text_of(rest) == ANSWER
        repeated = await events_of(there.send(session.session_id, turn_id=turn_id))
        assert text_of(repeated) == ANSWER
    assert (await books.spend()).total.calls == len(whole) + 1
    turns = await there.turns(session.session_id)
    assert {turn.answer.parts[0].text for turn in turns} == {ANSWER}
    assert [turn.history_turns for turn in turns] == list(range(len(turns)))


async def test_one_turn_at_a_time_and_it_can_be_cancelled_from_another_replica(
    replicas: tuple[Chatter, Chatter], books: Caller
) -> None:
    here, there = replicas
    slow = options(text=ANSWER, ttft_ms=1.0, tokens_per_second=0.1, chunk_size=1)
    session = await here.create(parameters=slow)
    stream = here.send(session.session_id, turn_id="t1")
    async for message in stream:
        if message.event.chunks and message.event.chunks[-1].text:
            break
    refused, _ = await refusal_of(anext(aiter(there.send(session.session_id))))
    assert refused.reason == "WRONG_STATE"
    cancel = chat_pb2.CancelChatTurnRequest(session_id=session.session_id, turn_id="t1")
    assert (await there.stub.CancelChatTurn(cancel, metadata=token_of())).cancelled
    error, call_error = await refusal_of(events_of(there.watch(session.session_id, "t1")))
    assert (error.reason, call_error.reason) == ("CANCELLED", error_pb2.ERROR_REASON_CANCELLED)
    (turn,) = await there.turns(session.session_id)
    assert turn.state == chat_pb2.CHAT_TURN_STATE_CANCELLED
    assert ANSWER.startswith(turn.answer.parts[0].text)
    assert turn.answer.parts[0].text
    assert (await books.spend()).held_nano_usd == 0


async def test_a_failed_call_is_told_to_all_and_its_turn_is_not_sent_along(replicas: tuple[Chatter, Chatter]) -> None:
    here, there = replicas
    session = await here.create(parameters=options(error_rate=1.0, error_kinds="context_length"))
    error, call_error = await refusal_of(events_of(here.send(session.session_id, turn_id="t1")))
    assert error.reason == "CONTEXT_LENGTH_EXCEEDED"
    again, _ = await refusal_of(events_of(there.watch(session.session_id, "t1")))
    assert (again.reason, again.message) == (error.reason, error.message)
    await refusal_of(events_of(here.send(session.session_id, turn_id="t2")))
    assert [turn.history_turns for turn in await there.turns(session.session_id)] == [0, 0]
    assert call_error.dispatched


async def test_the_client_asks_follows_and_tells_a_failed_turn_at_once(replicas: tuple[Chatter, Chatter]) -> None:
    async with Client(
        Endpoints(gateway=replicas[1].address), access_token=dict(token_of())["authorization"][7:]
    ) as client:
        session = await client.create_chat_session("mock/instant", system="Be short.")
        asked = [event async for event in client.send_chat_message(session.session_id, "Hello", turn_id="t1")]
        watched = [event async for event in client.watch_chat_turn(session.session_id, "t1", 0)]
        assert text_of(watched) == text_of(asked)
        assert [turn.turn_id async for turn in client.list_chat_turns(session.session_id)] == ["t1"]
        failing = await replicas[0].create(parameters=options(error_rate=1.0, error_kinds="overloaded"))
        with pytest.raises(LlmlabError) as failed:
            async for _ in client.send_chat_message(failing.session_id, "Hello", turn_id="t1"):
                pass
        assert failed.value.reason == "PROVIDER_OVERLOADED"
        with pytest.raises(LlmlabError):
            async for _ in client.watch_chat_turn(failing.session_id, "t1"):
                pass
        await client.delete_chat_session(session.session_id)
        titles = [kept.session_id async for kept in client.list_chat_sessions()]
        assert titles == [failing.session_id]


async def test_a_turn_asks_for_a_tool_and_the_next_one_has_its_answer(replicas: tuple[Chatter, Chatter]) -> None:
    here, there = replicas
    schema = '{"type": "object", "properties": {"city": {"type": "string"}}}'
    tools = [gateway_pb2.Tool(name="weather", description="Tells it.", parameters_json_schema=schema)]
    async with Client(Endpoints(gateway=here.address), access_token=dict(token_of())["authorization"][7:]) as client:
        session = await client.create_chat_session("mock/instant")
        sent = client.send_chat_message(
            session.session_id, "How warm?", turn_id="t1", tools=tools, tool_choice="weather"
        )
        called = [event async for event in sent]
        assert called[-1].chunks[-1].finished.finish_reason == gateway_pb2.FINISH_REASON_TOOL_CALLS
        asked = (await there.turns(session.session_id))[0].answer.parts[0].tool_call
        assert (asked.name, "city" in asked.arguments_json) == ("weather", True)
        result = content_pb2.ContentPart(tool_result=content_pb2.ToolResult(tool_call_id=asked.id, text="20 degrees"))
        answered = [event async for event in client.send_chat_message(session.session_id, [result], tools=tools)]
        assert text_of(answered)
        turns = await there.turns(session.session_id)
        assert (turns[1].history_turns, turns[1].question.parts[0].tool_result.text) == (1, "20 degrees")
        with pytest.raises(LlmlabError, match="name of a tool"):
            async for _ in client.send_chat_message(session.session_id, "And?", tools=tools, tool_choice="whether"):
                pass


async def test_sessions_are_listed_got_and_deleted_with_a_turn_under_way(replicas: tuple[Chatter, Chatter]) -> None:
    here, there = replicas
    slow = options(text=ANSWER, ttft_ms=1.0, tokens_per_second=0.1, chunk_size=1)
    made = [await here.create(title=title, parameters=slow) for title in ("first", "second", "third")]
    request = chat_pb2.ListChatSessionsRequest(page_size=2)
    page = await there.stub.ListChatSessions(request, metadata=token_of())
    assert [session.title for session in page.sessions] == ["third", "second"]
    request.page_token = page.next_page_token
    rest = await there.stub.ListChatSessions(request, metadata=token_of())
    assert ([session.title for session in rest.sessions], rest.next_page_token) == (["first"], "")
    got = chat_pb2.GetChatSessionRequest(session_id=made[0].session_id)
    assert (await there.stub.GetChatSession(got, metadata=token_of())).session == made[0]
    stream = here.send(made[0].session_id)
    await anext(aiter(stream))
    gone = chat_pb2.DeleteChatSessionRequest(session_id=made[0].session_id)
    await here.stub.DeleteChatSession(gone, metadata=token_of())
    error, _ = await refusal_of(events_of(stream))
    assert error.code == "NOT_FOUND"
    stranger, _ = await refusal_of(there.stub.GetChatSession(got, metadata=token_of("prj_2")))
    assert stranger.code == "NOT_FOUND"


async def test_without_a_database_the_refusal_says_what_to_set(gateway: RunningServer) -> None:
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        error, _ = await refusal_of(Chatter(chat_pb2_grpc.ChatServiceStub(channel), gateway.address).create())
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CHAT_NOT_CONFIGURED")
    assert "LLMLAB_GATEWAY_CHAT_HISTORY" in error.message


async def test_a_stopping_gateway_settles_and_keeps_what_came(
    chat_settings: GatewaySettings, cost: RunningServer, books: Caller
) -> None:
    async with (
        gateway_wiring.build(chat_settings, environ={}) as other,
        grpc.aio.insecure_channel(other.address) as channel,
    ):
        there = Chatter(chat_pb2_grpc.ChatServiceStub(channel), other.address)
        async with (
            gateway_wiring.build(
                chat_settings.model_copy(update={"grace_s": 0.1, "chat_turns_max": 1}), environ={}
            ) as one,
            grpc.aio.insecure_channel(one.address) as leaving,
        ):
            here = Chatter(chat_pb2_grpc.ChatServiceStub(leaving), one.address)
            slow = options(text=ANSWER, ttft_ms=1.0, tokens_per_second=0.1, chunk_size=1)
            session = await here.create(parameters=slow)
            stream = here.send(session.session_id, turn_id="t1")
            async for message in stream:
                if message.event.chunks and message.event.chunks[-1].text:
                    break
            stream.cancel()
            full, _ = await refusal_of(anext(aiter(here.send((await here.create()).session_id))))
            assert full.reason == "OVERLOADED"
        async with asyncio.timeout(30):
            error, _ = await refusal_of(events_of(there.watch(session.session_id, "t1")))
        assert error.reason == "CANCELLED"
        assert (await there.turns(session.session_id))[0].answer.parts[0].text
    assert (await books.spend()).total.calls == 1
