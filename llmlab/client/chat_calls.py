"""Chat sessions that the gateway keeps."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from llmlab.api.common.v1 import content_pb2
from llmlab.api.gateway.v1 import chat_pb2, gateway_pb2
from llmlab.api.gateway.v1.chat_pb2_grpc import ChatServiceStub
from llmlab.client.connection import Connection
from llmlab.client.errors import NetworkError
from llmlab.client.gateway_calls import COMPLETION_TIMEOUT_S, parameters_of

if TYPE_CHECKING:
    from llmlab.api.gateway.v1.chat_pb2_grpc import ChatServiceAsyncStub


class ChatCalls(Connection):
    """Sessions, their turns, and the streams of turns."""

    @property
    def _chat(self) -> ChatServiceAsyncStub:
        return ChatServiceStub(self._channel("gateway"))

    async def create_chat_session(
        self,
        /,
        model: str,
        *,
        title: str = "",
        system: str = "",
        history_tokens_max: int = 0,
        request_id: str = "",
        **parameters: Any,
    ) -> chat_pb2.ChatSession:
        """Begins a session with a model.

        Args:
            model: "provider/model".
            title: For people.
            system: Instructions that every question is sent with.
            history_tokens_max: Earlier turns are sent along while they take at most so many tokens; 0: the server says.
            request_id: Makes a repeat give the first session.
            parameters: Fields of `Parameters` for every turn.
        """
        request = chat_pb2.CreateChatSessionRequest(
            request_id=request_id or uuid.uuid4().hex,
            model=model,
            title=title,
            system=system,
            parameters=parameters_of(parameters),
            history_tokens_max=history_tokens_max,
        )
        return (await self._unary("gateway", self._chat.CreateChatSession, request)).session

    async def get_chat_session(self, session_id: str) -> chat_pb2.ChatSession:
        """Returns a session."""
        request = chat_pb2.GetChatSessionRequest(session_id=session_id)
        return (await self._unary("gateway", self._chat.GetChatSession, request)).session

    async def list_chat_sessions(self) -> AsyncIterator[chat_pb2.ChatSession]:
        """Yields the project's sessions, the latest first."""
        async for page in self._pages("gateway", self._chat.ListChatSessions, chat_pb2.ListChatSessionsRequest()):
            for session in page.sessions:
                yield session

    async def delete_chat_session(self, session_id: str) -> None:
        """Deletes a session with all its messages."""
        request = chat_pb2.DeleteChatSessionRequest(session_id=session_id)
        await self._unary("gateway", self._chat.DeleteChatSession, request)

    async def list_chat_turns(self, session_id: str) -> AsyncIterator[chat_pb2.ChatTurn]:
        """Yields the questions and answers of a session, in their order."""
        request = chat_pb2.ListChatTurnsRequest(session_id=session_id)
        async for page in self._pages("gateway", self._chat.ListChatTurns, request):
            for turn in page.turns:
                yield turn

    async def send_chat_message(
        self,
        session_id: str,
        question: str | Sequence[content_pb2.ContentPart],
        *,
        turn_id: str = "",
        tools: Sequence[gateway_pb2.Tool] = (),
        tool_choice: str = "",
        timeout_s: float = COMPLETION_TIMEOUT_S,
    ) -> AsyncIterator[chat_pb2.ChatEvent]:
        """Asks the model and yields the answer as it arrives; a stream that breaks is picked up where it was.

        Leaving does not stop the turn: see `watch_chat_turn` and `cancel_chat_turn`.

        Args:
            session_id: The session.
            question: A text, or texts, images and what tools answered.
            turn_id: Repeating a question under the same id follows the first one instead of asking twice.
            tools: Tools that the model may ask for; the next question has what they answered.
            tool_choice: auto, none, required, or the name of a tool.
            timeout_s: Seconds that the turn may take.
        """
        parts = [content_pb2.ContentPart(text=question)] if isinstance(question, str) else question
        request = chat_pb2.SendChatMessageRequest(
            session_id=session_id,
            turn_id=turn_id or f"turn_{uuid.uuid4().hex}",
            parts=parts,
            tools=tools,
            tool_choice=tool_choice,
            timeout_ms=round(timeout_s * 1000),
        )
        after: int | None = None
        try:
            async with aclosing(self._stream("gateway", self._chat.SendChatMessage, request)) as messages:
                async for message in messages:
                    after = message.event.sequence
                    yield message.event
            return
        except NetworkError as error:
            if after is None or error.call is not None:
                raise
        async for event in self.watch_chat_turn(session_id, request.turn_id, after):
            yield event

    async def watch_chat_turn(
        self, session_id: str, turn_id: str, after_sequence: int = 0
    ) -> AsyncIterator[chat_pb2.ChatEvent]:
        """Yields a turn's stream after a sequence, to its end; a stream that breaks is picked up where it was."""

        def request(after: int) -> chat_pb2.WatchChatTurnRequest:
            return chat_pb2.WatchChatTurnRequest(session_id=session_id, turn_id=turn_id, after_sequence=after)

        async for event in self._watched(
            "gateway", self._chat.WatchChatTurn, request, lambda message: [message.event], after_sequence
        ):
            yield event

    async def cancel_chat_turn(self, session_id: str, turn_id: str) -> bool:
        """Stops a turn; returns whether it was under way."""
        request = chat_pb2.CancelChatTurnRequest(session_id=session_id, turn_id=turn_id)
        return (await self._unary("gateway", self._chat.CancelChatTurn, request)).cancelled
